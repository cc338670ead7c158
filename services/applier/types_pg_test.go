package applier

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// TestSameTypes: binary rows in a column that was retyped meanwhile would be taken for values of the new type.
func TestSameTypes(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, conn, `CREATE TABLE "Odd one" (id int, at timestamp)`)
	table := &tableCopy{
		target: schema.Name{Schema: "public", Name: "Odd one"}, columns: []string{"id", "at"}, types: []uint32{pgtype.Int4OID, pgtype.TimestampOID}, binary: true,
	}
	check := func() error {
		return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { return sameTypes(t.Context(), tx, table) })
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, conn, `ALTER TABLE "Odd one" ALTER at TYPE timestamptz`)
	if f := classify(check()); f.code != reasonMismatch {
		t.Errorf("a retyped column: %+v", f)
	}
	table.binary = false
	if err := check(); err != nil {
		t.Errorf("rows in text: %v", err)
	}
}
