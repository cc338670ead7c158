package e2e

import (
	"os"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// Major versions of PostgreSQL for the servers that tests replicate from and to; unset, those that pgtest chooses.
const (
	sourceVersionVariable = "SYNCLINE_TEST_SOURCE_VERSION"
	targetVersionVariable = "SYNCLINE_TEST_TARGET_VERSION"
)

func versionFrom(variable string, opts []pgtest.Option) []pgtest.Option {
	if version := os.Getenv(variable); version != "" {
		opts = append(opts, pgtest.WithVersion(version))
	}
	return opts
}

// newSource starts a server to replicate from.
func newSource(t testing.TB, opts ...pgtest.Option) *pgtest.Server {
	t.Helper()
	return pgtest.New(t, versionFrom(sourceVersionVariable, opts)...)
}

// newTarget starts a server to replicate to.
func newTarget(t testing.TB, opts ...pgtest.Option) *pgtest.Server {
	t.Helper()
	return pgtest.New(t, versionFrom(targetVersionVariable, opts)...)
}
