package applier

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/schema"
)

// maxRenames bounds the rules of a replication.
const maxRenames = 1000

// renamingOf is what a replication calls the source's tables, sequences and types here. It is applied to the source's description and
// nowhere else: what is stored of a table has its target's name.
func renamingOf(spec *applierv1.ReplicationSpec) (schema.Renaming, error) {
	var r schema.Renaming
	for _, one := range spec.GetRename() {
		rule, err := schema.ParseRename(one.GetSource(), one.GetTarget())
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the rule
		}
		r = append(r, rule)
	}
	return r, nil
}

// validateNames finds what is wrong with where rows are to go.
func validateNames(p *problems, spec *applierv1.ReplicationSpec) {
	if len(spec.GetRename()) > maxRenames {
		p.add("spec.rename", "more than %d rules; use schema.*", maxRenames)
		return
	}
	for i, one := range spec.GetRename() {
		if _, err := schema.ParseRename(one.GetSource(), one.GetTarget()); err != nil {
			p.add(fmt.Sprintf("spec.rename[%d]", i), "%v", err)
		}
	}
	if spec.GetFromRestore() && len(spec.GetRename()) > 0 {
		p.add("spec.rename", "a backup was restored under the source's names: leave out one of rename and from_restore")
	}
	if spec.GetShared() && spec.GetSet() == "" {
		p.add("spec.shared", "rows of several replications are told apart by what a set selects, and none is named in spec.set")
	}
}

// routed is the target's table that takes a source table's rows, or its own name where that is to be created.
func (p *plan) routed(t schema.Table) schema.Name {
	if target, exists := schema.Route(p.source.Database, p.target, t.FullName()); exists {
		return target
	}
	return t.FullName()
}

// targetHolder is another replication that writes a table of the target.
type targetHolder struct {
	replication, server string
	shared              bool
	selector            string
	parameters          map[string]string
}

// String tells a holder with what it selects apart from others.
func (h targetHolder) String() string {
	return fmt.Sprintf("%q %q %t %q %q", h.replication, h.server, h.shared, h.selector, h.parameters)
}

// targetsOfOthers are the tables of the target that other replications write, and which.
func targetsOfOthers(ctx context.Context, q querier, replication string) (map[schema.Name][]targetHolder, error) {
	rows, err := q.Query(ctx, `SELECT t.target_schema, t.target_table, t.replication, r.source_server_id, t.shared, t.selector, coalesce(r.spec -> 'parameters', '{}')
		FROM syncline.tables t JOIN syncline.replications r ON r.name = t.replication WHERE t.replication <> $1 ORDER BY t.replication, t.schema_name, t.table_name`, replication)
	if err != nil {
		return nil, fmt.Errorf("read tables of other replications: %w", err)
	}
	others := map[schema.Name][]targetHolder{}
	var name schema.Name
	var other targetHolder
	var parameters []byte
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &other.replication, &other.server, &other.shared, &other.selector, &parameters}, func() error {
		other.parameters = nil
		if err := json.Unmarshal(parameters, &other.parameters); err != nil {
			return fmt.Errorf("parameters of replication %s: %w", other.replication, err)
		}
		others[name] = append(others[name], other)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tables of other replications: %w", err)
	}
	return others, nil
}
