package inventory

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/schema"
)

// The words of the API for the letters of PostgreSQL's catalog.
var (
	constraintKinds = map[string]string{
		schema.ConstraintPrimary: "primary key", schema.ConstraintUnique: "unique", schema.ConstraintCheck: "check",
		schema.ConstraintForeign: "foreign key", schema.ConstraintExclusion: "exclusion", schema.ConstraintNotNull: "not null",
	}
	typeKinds = map[string]string{
		schema.TypeEnum: "enum", schema.TypeDomain: "domain", schema.TypeComposite: "composite", schema.TypeRange: "range",
	}
)

// kindSystem is the kind of tables that are PostgreSQL's or Syncline's own.
const kindSystem = "system"

// Words for what of a table is in the change log.
const (
	capturedYes     = "yes"
	capturedInserts = "inserts"
	capturedPartly  = "partly"
	capturedNo      = "no"
)

// addDetails fills in what descriptors say of indexes, constraints, sequences and types, and the totals.
func addDetails(db schema.Database, answer *inventoryv1.GetInventoryResponse) {
	byName := make(map[schema.Name]*inventoryv1.Table, len(db.Tables))
	for i, t := range db.Tables { // the answer's first tables, in the same order
		p := answer.GetTables()[i]
		byName[t.FullName()] = p
		for _, x := range t.Indexes {
			p.IndexList = append(p.IndexList, &inventoryv1.Index{
				Name: x.Name, Definition: x.Definition, Unique: x.Unique, Primary: x.Primary, Valid: x.Valid, Constraint: x.Constraint,
			})
		}
		for _, c := range t.Constraints {
			p.ConstraintList = append(p.ConstraintList, &inventoryv1.Constraint{
				Name: c.Name, Kind: constraintKinds[c.Type], Definition: c.Definition, Validated: c.Validated,
			})
		}
	}
	for _, t := range db.Tables {
		if !t.HasRows() {
			continue
		}
		answer.TotalRows += t.EstimatedRows
		answer.TotalBytes += t.EstimatedBytes
		for _, name := range family(db, t) {
			if p := byName[name]; p != nil {
				p.TotalRows += t.EstimatedRows
				p.TotalBytes += t.EstimatedBytes
			}
		}
	}
	for _, q := range db.Sequences {
		p := &inventoryv1.Sequence{Schema: q.Schema, Name: q.Name, Type: q.Type, OwnerColumn: q.OwnerColumn}
		if !q.Owner.IsZero() {
			p.OwnerTable = q.Owner.SQL()
		}
		if q.Value != nil && q.Value.Called {
			p.LastValue = proto.Int64(q.Value.Last)
		}
		answer.Sequences = append(answer.Sequences, p)
	}
	for _, t := range db.Types {
		answer.Types = append(answer.Types, &inventoryv1.Type{Schema: t.Schema, Name: t.Name, Kind: typeKinds[t.Kind], Definition: typeDefinition(t)})
	}
}

// family is a table with rows and the partitioned tables above it.
func family(db schema.Database, t schema.Table) []schema.Name {
	names := []schema.Name{t.FullName()}
	for t.IsPartition() && len(t.Parents) > 0 {
		parent, found := db.Table(t.Parents[0])
		if !found {
			break
		}
		names = append(names, parent.FullName())
		t = parent
	}
	return names
}

// typeDefinition is what a type is made of, for people.
func typeDefinition(t schema.Type) string {
	switch t.Kind {
	case schema.TypeEnum:
		return strings.Join(t.Labels, ", ")
	case schema.TypeDomain:
		parts := []string{t.Base}
		if t.NotNull {
			parts = append(parts, "NOT NULL")
		}
		for _, c := range t.Constraints {
			parts = append(parts, c.Definition)
		}
		return strings.Join(parts, " ")
	case schema.TypeComposite:
		fields := make([]string, len(t.Attributes))
		for i, a := range t.Attributes {
			fields[i] = a.Name + " " + a.Type
		}
		return strings.Join(fields, ", ")
	}
	return t.Base
}

// addCaptured says of each table whether the logger captures it, and why not.
func addCaptured(db schema.Database, tables []*inventoryv1.Table, state *loggerv1.GetStateResponse) {
	captured := make(map[string]string, len(state.GetTables()))
	for _, name := range state.GetTables() {
		captured[name] = capturedYes
	}
	for _, name := range state.GetInsertOnlyTables() {
		captured[name] = capturedInserts
	}
	refused := make(map[schema.Name]*loggerv1.UncapturedTable, len(state.GetUncapturedTables()))
	for _, u := range state.GetUncapturedTables() {
		refused[schema.Name{Schema: u.GetSchema(), Name: u.GetName()}] = u
	}
	parents := make(map[schema.Name]*inventoryv1.Table)
	for i, t := range db.Tables {
		p, name := tables[i], t.FullName()
		if !t.HasRows() {
			parents[name] = p
			continue
		}
		if p.Captured = captured[name.SQL()]; p.GetCaptured() != "" {
			continue
		}
		p.Captured = capturedNo
		if u := refused[name]; u != nil {
			p.NotCapturedReason, p.Mend, p.MendSql = u.GetReason(), u.GetMend(), u.GetSql()
		} else {
			p.NotCapturedReason = "the logger's configuration leaves it out, or it is new and will be captured in a moment"
			p.Mend = "see `syncline logger config`, include-tables and exclude-tables"
		}
	}
	for i, t := range db.Tables {
		if !t.HasRows() {
			continue
		}
		for _, name := range family(db, t)[1:] {
			if p := parents[name]; p != nil {
				join(p, tables[i], t.FullName())
			}
		}
	}
}

// join has a partitioned table say what its partitions are.
func join(parent, partition *inventoryv1.Table, name schema.Name) {
	switch {
	case parent.GetCaptured() == "":
		parent.Captured = partition.GetCaptured()
	case parent.GetCaptured() != partition.GetCaptured():
		parent.Captured = capturedPartly
	}
	if partition.GetCaptured() == capturedNo && parent.GetNotCapturedReason() == "" {
		parent.NotCapturedReason = fmt.Sprintf("partition %s: %s", name, partition.GetNotCapturedReason())
		parent.Mend, parent.MendSql = partition.GetMend(), partition.GetMendSql()
	}
}

// readSystem lists the tables that are PostgreSQL's or Syncline's own.
func (s *Service) readSystem(ctx context.Context) ([]*inventoryv1.Table, error) {
	conn, err := connect(ctx, s.config.PostgresURL)
	if err != nil {
		return nil, err
	}
	defer closeSession(conn.PgConn())
	rows, err := conn.Query(ctx, `
		SELECT c.oid, n.nspname::text, c.relname::text, greatest(c.reltuples, 0)::int8, pg_table_size(c.oid),
		       CASE n.nspname WHEN 'syncline' THEN 'it is Syncline''s own, and each node has one' ELSE 'it is PostgreSQL''s own' END
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND (n.nspname IN ('pg_catalog', 'information_schema', 'syncline'))
		ORDER BY 2, 3`)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer rows.Close()
	var list []*inventoryv1.Table
	for rows.Next() {
		t := &inventoryv1.Table{Kind: kindSystem, Captured: capturedNo}
		if err := rows.Scan(&t.Oid, &t.Schema, &t.Name, &t.EstimatedRows, &t.Bytes, &t.NotCapturedReason); err != nil {
			return nil, fmt.Errorf("read system tables: %w", err)
		}
		t.TotalRows, t.TotalBytes = t.GetEstimatedRows(), t.GetBytes()
		list = append(list, t)
	}
	return list, explain(ctx, rows.Err())
}
