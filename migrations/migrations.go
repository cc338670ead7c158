// Package migrations holds the SQL that prepares a node's database, one directory for each role. A file is never changed
// once it was released; the next change is the next number. internal/node runs them.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed primary/*.sql replica/*.sql
var files embed.FS

// Primary holds the migrations of a node with the role primary.
func Primary() fs.FS { return sub("primary") }

// Replica holds the migrations of a node with the role replica.
func Replica() fs.FS { return sub("replica") }

func sub(dir string) fs.FS {
	fsys, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the directory is named by the embed directive above
	}
	return fsys
}
