package schema

import (
	"context"
	"slices"
	"strings"
)

// relation is a row of relationsQuery.
type relation struct {
	table       Table
	kind        string // pg_class.relkind
	persistence string // pg_class.relpersistence
	partition   bool
	tuples      float64 // -1: never counted
	relpages    int64
	extension   string
}

// readTables finds the selected tables and lists every other relation with the reason why it is not replicated.
func (r *reader) readTables(ctx context.Context) error {
	relations := make(map[uint32]*relation)
	r.names = make(map[uint32]Name)
	var n relation
	t := &n.table
	targets := []any{
		&t.OID, &t.Schema, &t.Name, &n.kind, &n.persistence, &n.partition, &t.ReplicaIdentity, &t.RowSecurity,
		&t.ForceRowSecurity, &t.Filenode, &n.tuples, &n.relpages, &t.PartitionKey, &t.Bound,
		&t.Options, &t.ReplicaTriggers, &t.ReplicaRules, &n.extension,
	}
	var order []uint32
	if err := r.each(ctx, relationsQuery, nil, targets, func() error {
		found := n
		found.table.Options = pageOptions(t.Options)
		relations[t.OID] = &found
		r.names[t.OID] = t.FullName()
		order = append(order, t.OID)
		return nil
	}); err != nil {
		return err
	}

	parents := make(map[uint32][]uint32)
	var child, parent uint32
	if err := r.each(ctx, inheritsQuery, nil, []any{&child, &parent}, func() error {
		parents[child] = append(parents[child], parent)
		return nil
	}); err != nil {
		return err
	}

	r.tables = make(map[uint32]*Table)
	for _, oid := range order {
		n := relations[oid]
		n.table.Parents = r.namesOf(parents[oid])
		if reason := n.notReplicated(); reason != "" {
			r.db.NotReplicated = append(r.db.NotReplicated, Skipped{
				Kind: n.describe(), Name: n.table.FullName().String(), Reason: reason, Relation: n.table.FullName(),
			})
			continue
		}
		if !r.selection.Matches(n.table.FullName(), r.namesOf(above(oid, relations, parents))...) {
			continue
		}
		n.table.Kind = n.describe()
		r.tables[oid] = &n.table
	}
	var oid uint32
	var pages, bytes int64
	return r.each(ctx, sizesQuery, []any{r.oids()}, []any{&oid, &pages, &bytes}, func() error {
		n := relations[oid]
		n.table.Pages, n.table.EstimatedBytes = pages, bytes
		n.table.EstimatedRows = n.estimateRows()
		return nil
	})
}

func (r *reader) namesOf(oids []uint32) []Name {
	var names []Name
	for _, oid := range oids {
		if name, known := r.names[oid]; known {
			names = append(names, name)
		}
	}
	return names
}

// above lists the partitioned tables over a partition, nearest first.
func above(oid uint32, relations map[uint32]*relation, parents map[uint32][]uint32) []uint32 {
	var up []uint32
	for relations[oid] != nil && relations[oid].partition && len(parents[oid]) == 1 && !slices.Contains(up, parents[oid][0]) {
		oid = parents[oid][0]
		up = append(up, oid)
	}
	return up
}

func (n *relation) describe() string {
	switch {
	case n.kind == "f":
		return "foreign table"
	case n.kind == "m":
		return "materialized view"
	case n.kind == "v":
		return "view"
	case n.persistence == "t":
		return "temporary table"
	case n.kind == "p": // up to 17 it may be marked unlogged, which means nothing
		return KindPartitioned
	case n.persistence == "u":
		return "unlogged table"
	case n.partition:
		return KindLeaf
	}
	return KindOrdinary
}

func (n *relation) notReplicated() string {
	switch n.describe() {
	case "foreign table":
		return "its rows are on another server"
	case "materialized view":
		return "it is computed from other tables; create and refresh it on the target"
	case "view":
		return "it holds no rows; create it on the target where it is wanted"
	case "temporary table":
		return "it belongs to one session and is not in the write-ahead log"
	case "unlogged table":
		return "its changes are not in the write-ahead log; ALTER TABLE … SET LOGGED makes it replicable"
	}
	if n.extension != "" {
		return "it belongs to the extension " + n.extension
	}
	return ""
}

// estimateRows scales the last known density to the table's present length, as the planner does. A table that was
// never counted is taken to be full of rows as wide as their types suggest.
func (n *relation) estimateRows() int64 {
	switch {
	case n.kind == "p" || n.table.Pages == 0:
		return 0
	case n.tuples >= 0 && n.relpages > 0:
		return int64(n.tuples / float64(n.relpages) * float64(n.table.Pages))
	case n.tuples > 0:
		return int64(n.tuples)
	}
	return n.table.Pages * guessedRowsPerPage
}

// guessedRowsPerPage is for tables that neither ANALYZE nor VACUUM has seen: rows of about 100 bytes in 8 KiB pages.
const guessedRowsPerPage = 80

// pageOptions keeps the storage parameters that shape pages. Those of vacuum belong to each server's own load, and
// older servers do not know all of them.
func pageOptions(options []string) []string {
	var kept []string
	for _, option := range options {
		name, _, _ := strings.Cut(option, "=")
		if name == "fillfactor" || name == "toast_tuple_target" || name == "parallel_workers" {
			kept = append(kept, option)
		}
	}
	slices.Sort(kept)
	return kept
}
