//go:build !linux

package segment

import "os"

// syncData makes what was written to a file durable, with its size.
func syncData(f *os.File) error { return f.Sync() }
