package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// A table may be shared by replications whose selectors want other values of one column, if each of the table's unique keys holds that
// column. Then no row or key of one can be in the way of another's, in whatever order their changes come; see docs/adr/0019-organisations.md.

// shares tells whether a table of the source goes into one that may hold others' rows.
func (p *plan) shares(o planOptions, source schema.Name) bool {
	return o.shared && p.set.rows[source] != ""
}

// compile fits a selector to a table's columns.
func compile(selector string, columns []filter.Column, parameters map[string]string) (*filter.Predicate, error) {
	s, err := filter.Parse([]byte(selector))
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller names the table
	}
	return s.Compile(columns, parameters) //nolint:wrapcheck // the caller names the table
}

// ownCondition is a WHERE for the rows of a table that a replication selects.
func ownCondition(selector string, columns []filter.Column, parameters map[string]string, table schema.Name) (string, error) {
	p, err := compile(selector, columns, parameters)
	if err != nil {
		return "", failed(reasonMismatch, "table %s of the replica cannot be told by which rows the set selects: %w", table, err)
	}
	return p.SQL(), nil
}

// ownRows is the WHERE for what a replication may look at and remove in the target of a table: everything, unless that is shared.
func (p *plan) ownRows(t *storedTable) (string, error) {
	target, exists := p.target.Table(t.target)
	if !t.shared || !exists {
		return "", nil
	}
	condition, err := ownCondition(t.selector, sets.FilterColumns(target), p.parameters, t.target)
	return " WHERE " + condition, err
}

// mayShare refuses to write a table together with others when a row or a key of the one could be in the way of another's.
func (p *plan) mayShare(source schema.Table, target schema.Name, selector string, others []targetHolder) error {
	table, exists := p.target.Table(target)
	if !exists {
		table = source // as it will be
	}
	columns := sets.FilterColumns(table)
	own, err := compile(selector, columns, p.parameters)
	if err != nil {
		return failed(reasonMismatch, "table %s of the replica cannot be told by which rows the set selects: %w", target, err)
	}
	keyed, inTheWay := apartByKeys(table, own.Pinned())
	if len(keyed) == 0 && inTheWay == "" {
		return failed(reasonNotApart, "table %s of the replica cannot be shared: the set does not select its rows by the value of a column, so nothing tells them from another replication's; leave out --shared", target)
	}
	if len(keyed) == 0 {
		return failed(reasonNotApart, "table %s of the replica cannot be shared: %s does not hold column %s, by which its rows are told apart, so rows of several replications could be in each other's way; "+
			"create the table there with keys that do, or give each replication a table of its own with --rename", target, inTheWay, strings.Join(own.Pinned(), " or "))
	}
	for _, other := range others {
		if !other.shared {
			return failed(reasonSharedTarget, "table %s of the replica is written by replication %s, which does not share it; delete that one and create it again with --shared, or take another table with --rename", target, other.replication)
		}
		theirs, err := compile(other.selector, columns, other.parameters)
		if err != nil || other.server != p.server ||
			!slices.ContainsFunc(own.Apart(theirs), func(c string) bool { return slices.Contains(keyed, c) }) {
			return failed(reasonNotApart, "table %s of the replica cannot be shared with replication %s: both have to follow one source, and to select rows by different values of column %s", target, other.replication, strings.Join(keyed, " or "))
		}
		p.sharers = append(p.sharers, other.String())
	}
	return nil
}

// neverNull tells whether a mismatch is about NULLs in a column by whose value the set selects: what it selects has none.
func (p *plan) neverNull(m schema.Mismatch) bool {
	selector := p.set.rows[p.source.Source(m.Table)]
	table, found := p.source.Table(m.Table)
	if m.Type || m.Source != "nullable" || selector == "" || !found {
		return false
	}
	own, err := compile(selector, sets.FilterColumns(table), p.parameters)
	return err == nil && slices.Contains(own.Pinned(), m.Column)
}

// apartByKeys are those of the pinned columns that each unique key of a table holds. If that is none it names a key that is why.
func apartByKeys(t schema.Table, pinned []string) (columns []string, inTheWay string) {
	columns = slices.Clone(pinned)
	for _, x := range t.Indexes {
		if !x.Unique {
			continue
		}
		if columns = slices.DeleteFunc(columns, func(c string) bool { return !slices.Contains(x.Columns, c) }); len(columns) == 0 {
			return nil, fmt.Sprintf("its unique index %s (%s)", x.Name, strings.Join(x.Columns, ", "))
		}
	}
	for _, k := range t.Constraints {
		if k.Type == schema.ConstraintExclusion {
			return nil, "its exclusion constraint " + k.Name
		}
	}
	return columns, ""
}

// removeNarrowed removes the rows that a replication selected of shared tables before its set changed.
func (p *plan) removeNarrowed(ctx context.Context, tx pgx.Tx) error {
	for _, t := range p.narrowed {
		if _, exists := p.target.Table(t.target); !exists {
			continue
		}
		where, err := p.ownRows(t)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM "+t.target.SQL()+where); err != nil {
			return fmt.Errorf("remove the rows of table %s that were selected before: %w", t.target, err)
		}
		fault.Point(FaultNarrowed)
	}
	return nil
}

// targetColumns are a target's columns for a selector.
func targetColumns(t *apply.Target) []filter.Column {
	columns := make([]filter.Column, 0, len(t.Columns))
	for _, c := range t.Columns {
		if !c.Generated {
			columns = append(columns, filter.Column{Name: c.Name, TypeOID: c.TypeOID, Type: c.Type})
		}
	}
	return columns
}

// own is the condition for the rows of a unit that are this replication's, "" when all are.
func (c *copier) own(u *unit, target *apply.Target) (string, error) {
	if !u.shared() || target == nil {
		return "", nil
	}
	var conditions []string
	for _, t := range u.tables {
		condition, err := ownCondition(t.selector, targetColumns(target), c.parameters, u.target)
		if err != nil {
			return "", err
		}
		conditions = append(conditions, condition)
	}
	return anyOf(conditions), nil
}

// anyOf is fulfilled by what one of the conditions is: partitions that go into one table may have selectors of their own.
func anyOf(conditions []string) string {
	slices.Sort(conditions)
	return "(" + strings.Join(slices.Compact(conditions), " OR ") + ")"
}

// shared tells whether others have rows in the unit's target.
func (u *unit) shared() bool {
	return slices.ContainsFunc(u.tables, func(t *storedTable) bool { return t.shared })
}

// emptyShared removes a replication's own rows.
func emptyShared(ctx context.Context, tx pgx.Tx, target *apply.Target, name schema.Name, condition string, mayRemove bool) error {
	from := " FROM ONLY " + name.SQL() + " WHERE " + condition
	if target.Partitioned {
		from = " FROM " + name.SQL() + " WHERE " + condition
	}
	if !mayRemove {
		var rows bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT"+from+")").Scan(&rows); err != nil {
			return fmt.Errorf("look into table %s of the replica: %w", name, err)
		}
		if rows {
			return failed(reasonNotEmpty, "table %s of the replica holds rows of what the set selects that did not come from the source; remove them, then start the replication again", name)
		}
	}
	_, err := tx.Exec(ctx, "DELETE"+from)
	return err
}

// ownRowsOnly has units read only those rows of shared targets that are the replication's.
func ownRowsOnly(units []*verifyUnit, tables []*storedTable, target schema.Database, parameters map[string]string) {
	for _, t := range tables {
		if !t.shared {
			continue
		}
		name := holder(target, t.target, tables)
		table, exists := target.Table(name)
		at := slices.IndexFunc(units, func(u *verifyUnit) bool { return u.target == name })
		if !exists || at < 0 {
			continue
		}
		condition, err := ownCondition(t.selector, sets.FilterColumns(table), parameters, name)
		if err != nil {
			units[at].not(applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "%s", rpc.Message(err))
		}
		if before := units[at].where; before != "" && condition != "" {
			condition = anyOf([]string{before, condition})
		}
		units[at].where = condition
	}
}
