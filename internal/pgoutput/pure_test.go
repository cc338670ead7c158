package pgoutput

import (
	"go/build"
	"slices"
	"testing"
)

// The decoder is pure: it may be given bytes by a connection, a file or a fuzzer, and knows none of them.
func TestImports(t *testing.T) {
	allowed := []string{
		"bytes", "encoding/binary", "errors", "fmt", "time",
		"github.com/seed0419d559/syncline/internal/change", // LSN and relations are words of the domain
	}
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pkg.Imports {
		if !slices.Contains(allowed, name) {
			t.Errorf("imports %s", name)
		}
	}
}
