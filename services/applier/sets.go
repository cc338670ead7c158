package applier

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// usedSet is the set of a replication; its name is empty when the replication chooses tables by itself. What is asked of the
// source has to come from the version of the set that the target holds, so each request names it.
type usedSet struct {
	name       string
	parameters map[string]string
	version    int64 // 0 while the target holds none
	// own are the tables that the replication chooses by itself, nil when it takes a set, or all.
	own *loggerv1.SetSpec
	// rows are the selectors of tables of which not all rows are selected, as the source's inventory told last.
	rows map[schema.Name]string
	// insertOnly are tables of which only inserts come, as the inventory told last.
	insertOnly map[schema.Name]bool
}

// selects tells whether less than everything comes in the stream.
func (s *usedSet) selects() bool { return s.name != "" || s.own != nil }

// usedSetOf is what a replication takes of its source.
func usedSetOf(spec *applierv1.ReplicationSpec) usedSet {
	s := usedSet{name: spec.GetSet(), parameters: spec.GetParameters()}
	if len(spec.GetIncludeTables())+len(spec.GetExcludeTables()) > 0 {
		s.own = &loggerv1.SetSpec{ExcludeTables: spec.GetExcludeTables()}
		for _, pattern := range spec.GetIncludeTables() {
			s.own.Tables = append(s.own.Tables, &loggerv1.SetTable{Pattern: pattern})
		}
	}
	return s
}

// describeSet returns those of the set's tables that are selected too. Without a version it takes over the present one.
func (s *source) describeSet(ctx context.Context, selection schema.Selection) (schema.Database, error) {
	database, answer, err := s.readInventory(ctx, &inventoryv1.GetInventoryRequest{Set: s.set.name, Parameters: s.set.parameters})
	if err != nil {
		return schema.Database{}, err
	}
	version := answer.GetSetVersion()
	if s.set.version == 0 {
		s.set.version = version
	}
	if s.set.version != version {
		return schema.Database{}, rpc.Errorf(codes.Aborted, reasonSetChanged, "set %s of the source is now version %d instead of %d", s.set.name, version, s.set.version)
	}
	s.set.rows, s.set.insertOnly = map[schema.Name]string{}, map[schema.Name]bool{}
	for _, t := range answer.GetTables() {
		name := schema.Name{Schema: t.GetSchema(), Name: t.GetName()}
		s.set.rows[name] = t.GetRows()
		s.set.insertOnly[name] = t.GetCaptured() == capturedInserts
	}
	if !selection.All() {
		all := database
		database.Tables = slices.DeleteFunc(slices.Clone(all.Tables), func(t schema.Table) bool {
			return !selection.Matches(t.FullName(), sets.Above(all, t)...)
		})
	}
	return database, nil
}

// adoptSet brings the target from the version of the set that it holds to the present one: of tables of which other rows are selected only
// what differs is shipped, and until then the rows of the former version stay. Those that have left the set are emptied. What else is
// there stays, and goes on from where it is.
func (r *runner) adoptSet(ctx context.Context, session *apply.Session, src *source, held *stored) error {
	src.set.version = 0
	database, err := src.describe(ctx, schema.Selection{})
	if err != nil {
		return err
	}
	if src.set.version == held.setVersion {
		return nil
	}
	tables, err := listTables(ctx, session.Conn(), held.name)
	if err != nil {
		return err
	}
	again := &apply.NewTableError{LSN: change.LSN(math.MaxUint64)}
	var left []*storedTable
	emptied := map[schema.Name]bool{}
	for _, t := range tables {
		if _, in := database.Table(t.name); !in {
			left = append(left, t)
			emptied[t.target] = true
		}
	}
	for _, t := range tables {
		described, in := database.Table(t.name)
		if in && (src.set.rows[t.name] != t.selector || emptied[t.target] || t.lacks(ordinary(described))) {
			again.Tables = append(again.Tables, t.name)
		}
	}
	r.log.Info("the set has changed", "set", src.set.name, "version", src.set.version, "compared", again.Tables, "left", len(left))
	p, err := r.plan(ctx, session, src, held.spec, planOptions{again: again, mend: true})
	if err != nil {
		return err
	}
	p.left = left
	return r.carryOut(ctx, session, p.copyingInserts(src))
}

// lacks tells whether there are columns whose values the target does not have.
func (t *storedTable) lacks(columns []string) bool {
	return t.columns != nil && slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(t.columns, c) })
}

// keepColumns stores which columns the set has the target take from now on.
func (p *plan) keepColumns(ctx context.Context, tx pgx.Tx, replication string) error {
	if p.set.name == "" {
		return nil
	}
	for _, t := range p.described.Tables {
		_, err := tx.Exec(ctx, "UPDATE syncline.tables SET columns = $4 WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
			replication, t.Schema, t.Name, ordinary(t))
		if err != nil {
			return fmt.Errorf("store the columns of table %s: %w", t.FullName(), err)
		}
	}
	return nil
}

// copyingInserts has tables copied anew of which only inserts come: rows that the source has updated or deleted stay when they are mended.
func (p *plan) copyingInserts(src *source) *plan {
	for _, t := range p.tables {
		if src.set.insertOnly[t.name] {
			t.incremental = false
		}
	}
	return p
}

// leave forgets the tables that have left the set, and removes their rows. A target that still takes rows of others is left as it is
// until those are copied anew.
func (p *plan) leave(ctx context.Context, tx pgx.Tx, replication string, gone *drops) error {
	for _, t := range p.left {
		if err := removeTable(ctx, tx, replication, t.name, gone); err != nil {
			return err
		}
		if slices.ContainsFunc(p.tables, func(other *storedTable) bool { return other.target == t.target }) {
			continue
		}
		if _, there := p.target.Table(t.target); !there {
			continue
		}
		where, err := p.ownRows(t)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM "+t.target.SQL()+where); err != nil {
			return fmt.Errorf("remove the rows of table %s, which has left the set: %w", t.target, err)
		}
		fault.Point(FaultLeftSet)
	}
	return nil
}

// setSetVersion stores which version of the set the target holds once the plan that is carried out is done with.
func setSetVersion(ctx context.Context, q querier, replication string, version int64) error {
	if _, err := q.Exec(ctx, "UPDATE syncline.replications SET set_version = $2 WHERE name = $1", replication, version); err != nil {
		return fmt.Errorf("store the set of replication %s: %w", replication, err)
	}
	return nil
}

// capturedInserts is Table.captured of those of which only inserts come.
const capturedInserts = "inserts"

// maxParameters bounds the parameters of a set, maxParameterBytes the size of each.
const (
	maxParameters     = 100
	maxParameterBytes = 1 << 10
)

func validateSet(spec *applierv1.ReplicationSpec) error {
	switch {
	case spec.GetSet() == "" && len(spec.GetParameters()) > 0:
		return rpc.Invalid("spec.parameters", "they belong to a set, and none is named in spec.set")
	case spec.GetSet() == "":
		return nil
	case len(spec.GetIncludeTables())+len(spec.GetExcludeTables()) > 0:
		return rpc.Invalid("spec.set", "a set selects the tables: include_tables and exclude_tables have to be empty")
	case len(spec.GetSet()) > maxNameBytes || !nameForm.MatchString(spec.GetSet()):
		return rpc.Invalid("spec.set", "%q is no name of a set", spec.GetSet())
	case len(spec.GetParameters()) > maxParameters:
		return rpc.Invalid("spec.parameters", "there are more than %d", maxParameters)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.GetParameters())) {
		if len(name)+len(spec.GetParameters()[name]) > maxParameterBytes {
			return rpc.Invalid("spec.parameters", "parameter %.100q is larger than %d bytes", name, maxParameterBytes)
		}
	}
	return nil
}
