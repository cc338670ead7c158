package inventory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// surroundings are what a replica has to know of the primary beside its tables, before it begins.
type surroundings struct {
	settings        postgres.Settings
	snapshotProblem string
	grants          map[uint32]string // statements that let the role read tables which it may not, by OID
}

func readSurroundings(ctx context.Context, conn *pgx.Conn, db schema.Database) (s surroundings, err error) {
	if s.settings, err = postgres.ReadSettings(ctx, conn); err != nil {
		return s, err //nolint:wrapcheck // it says what failed
	}
	if problem := checkServer(ctx, conn); problem != nil {
		s.snapshotProblem = strings.TrimPrefix(rpc.Message(problem), "open snapshot: ")
	}
	s.grants, err = readGrants(ctx, conn, db)
	return s, err
}

// unreadableQuery finds what the role may not read of tables, by their columns.
const unreadableQuery = `
SELECT c.oid, has_schema_privilege(c.relnamespace, 'USAGE'), ARRAY(
       SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT'))
  FROM pg_class c WHERE c.oid = ANY ($1)`

// readGrants finds tables of which the role may not read a column that is described.
func readGrants(ctx context.Context, conn *pgx.Conn, db schema.Database) (map[uint32]string, error) {
	byOID := make(map[uint32]schema.Table, len(db.Tables))
	var oids []uint32
	for _, t := range db.Tables {
		if t.HasRows() {
			byOID[t.OID] = t
			oids = append(oids, t.OID)
		}
	}
	rows, err := conn.Query(ctx, unreadableQuery, oids)
	if err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	grants, role := map[uint32]string{}, postgres.Ident(db.Role.Name)
	var oid uint32
	var usable bool
	var hidden []string
	_, err = pgx.ForEachRow(rows, []any{&oid, &usable, &hidden}, func() error {
		var statements []string
		t := byOID[oid]
		if !usable {
			statements = append(statements, "GRANT USAGE ON SCHEMA "+postgres.Ident(t.Schema)+" TO "+role)
		}
		if slices.ContainsFunc(hidden, func(name string) bool { _, wanted := t.Column(name); return wanted }) {
			statements = append(statements, "GRANT SELECT ON TABLE "+t.FullName().SQL()+" TO "+role)
		}
		if statements != nil {
			grants[oid] = strings.Join(statements, "; ")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	return grants, nil
}

func settingsProto(s postgres.Settings) *inventoryv1.DatabaseSettings {
	return &inventoryv1.DatabaseSettings{
		Encoding: s.Encoding, CollationProvider: s.Provider, Locale: s.Locale, Collate: s.Collate, Ctype: s.CType,
		CollationVersion: s.CollationVersion, ActualCollationVersion: s.CollationActual, StartTime: timestamppb.New(s.Start),
	}
}
