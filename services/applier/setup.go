package applier

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/internal/setup"
)

// Setup is what a look at a replica's database shows to whoever prepares it.
type Setup struct {
	Problems []setup.Problem
	// Tables are those of the selection that are there and would be written.
	Tables []schema.Name
}

// CheckSetup finds what keeps a role, which need not be there yet, from creating and writing the tables to which selected
// ones of a source go. What the source's tables will need is not known here, so foreign keys are expected. It changes nothing.
func CheckSetup(ctx context.Context, conn *pgx.Conn, selection schema.Selection, renaming schema.Renaming, role string) (Setup, error) {
	var s Setup
	db, err := schema.Read(ctx, conn, everything)
	if err != nil {
		return s, fmt.Errorf("read the replica's tables: %w", err)
	}
	all := db
	db.Tables = slices.DeleteFunc(slices.Clone(db.Tables), func(t schema.Table) bool { return !renaming.Reaches(selection, t.FullName(), sets.Above(all, t)...) })
	for _, t := range db.Tables {
		s.Tables = append(s.Tables, t.FullName())
	}
	var database string
	var creates, guards bool
	err = conn.QueryRow(ctx, `SELECT current_database(), has_database_privilege(`+setup.Grantee+`, current_database(), 'CREATE'),
		has_parameter_privilege(`+setup.Grantee+`, 'session_replication_role', 'SET')`, role).Scan(&database, &creates, &guards)
	if err != nil {
		return s, fmt.Errorf("read privileges on the replica's database: %w", err)
	}
	if !creates {
		s.Problems = append(s.Problems, setup.CreateSchemas(database, role))
	}
	closed, err := setup.ClosedSchemas(ctx, conn, role, renaming.Schemas(selection, db.Schemas))
	if err != nil {
		return s, err //nolint:wrapcheck // it says what failed
	}
	tables, triggers, err := setup.Writable(ctx, conn, role, s.Tables)
	if err != nil {
		return s, err //nolint:wrapcheck // it says what failed
	}
	s.Problems = slices.Concat(s.Problems, closed, tables)
	if !guards {
		why := (&plan{target: db}).needsReplicaRole(triggers)
		if why == "" {
			why = "tables with foreign keys may come"
		}
		s.Problems = append(s.Problems, setup.SetReplicaRole(why, role))
	}
	grant, err := setup.MessageGrant(ctx, conn, role)
	if err != nil {
		return s, err //nolint:wrapcheck // it says what failed
	}
	if grant != "" {
		s.Problems = append(s.Problems, setup.EmitMessages(grant))
	}
	return s, nil
}
