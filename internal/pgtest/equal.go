package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/compare"
)

// Report is the outcome of Compare.
type Report = compare.Report

// CompareOptions narrow or widen Compare.
type CompareOptions = compare.Options

// Compare compares all rows of all permanent tables of two databases; see compare.Databases. a is what is expected.
func Compare(ctx context.Context, a, b *pgx.Conn, opts CompareOptions) (Report, error) {
	return compare.Databases(ctx, a, b, opts)
}

// RequireEqual fails the test now unless both databases hold the same tables with the same rows.
func RequireEqual(t testing.TB, urlA, urlB string) {
	t.Helper()
	RequireEqualWith(t, urlA, urlB, CompareOptions{})
}

// RequireEqualWith is RequireEqual with options.
func RequireEqualWith(t testing.TB, urlA, urlB string, opts CompareOptions) {
	t.Helper()
	report, err := Compare(t.Context(), Connect(t, urlA), Connect(t, urlB), opts)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Equal() {
		t.Fatal(report)
	}
}
