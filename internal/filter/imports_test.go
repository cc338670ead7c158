package filter

import (
	"go/build"
	"slices"
	"strings"
	"testing"
)

// The package is pure: rows and selectors are given to it, and it knows neither connections nor protocols.
func TestImports(t *testing.T) {
	allowed := []string{
		"github.com/seed0419d559/syncline/internal/postgres", // for Ident and Literal: there is one place where SQL is quoted
	}
	forbidden := []string{"os", "io", "net", "context", "time", "database/sql"}
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pkg.Imports {
		if strings.Contains(name, ".") && !slices.Contains(allowed, name) || slices.Contains(forbidden, name) {
			t.Errorf("imports %s", name)
		}
	}
}
