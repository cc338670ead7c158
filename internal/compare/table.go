package compare

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// plan is how both sides of one table are read: the same fields in the same order, sorted by the key fields, which come
// first. Without a key there is one field, the text of the whole row.
type plan struct {
	name    string
	key     []string
	order   []keyOrder // one for each key field
	fields  []string   // names of all fields, the key's first
	keyless bool
}

// keyOrder is the order in which one key field sorts, the same in PostgreSQL and here.
type keyOrder int

const (
	byBytes   keyOrder = iota // text, COLLATE "C"
	byInteger                 // integers in their own order, which their index has too
	byNative                  // a type whose own order is that of its text's bytes: uuid
)

func orderOf(typ string) keyOrder {
	switch typ {
	case "smallint", "integer", "bigint":
		return byInteger
	case "uuid":
		return byNative
	}
	return byBytes
}

func (c *comparison) table(ctx context.Context, a, b table) error {
	name := a.schema + "." + a.name
	p := plan{name: name, key: a.key}
	types := map[string]string{}
	for _, col := range b.columns {
		types[col.name] = col.typ
	}
	for _, col := range a.columns {
		if _, ok := types[col.name]; ok {
			p.fields = append(p.fields, col.name)
		}
	}
	if !slices.Equal(a.columns, b.columns) {
		c.report.add(c.opts.Details, Difference{Table: name, Kind: Columns, A: columnList(a), B: columnList(b)})
	}
	p.keyless = len(p.key) == 0 || slices.ContainsFunc(p.key, func(k string) bool { return !slices.Contains(p.fields, k) })
	if !p.keyless {
		for _, k := range p.key {
			i := slices.IndexFunc(a.columns, func(col column) bool { return col.name == k })
			order := orderOf(a.columns[i].typ)
			if types[k] != a.columns[i].typ {
				order = byBytes
			}
			p.order = append(p.order, order)
		}
		rest := slices.DeleteFunc(slices.Clone(p.fields), func(f string) bool { return slices.Contains(p.key, f) })
		p.fields = append(slices.Clone(p.key), rest...)
	}
	return c.rows(ctx, p, a, b)
}

func columnList(t table) string {
	var list []string
	for _, col := range t.columns {
		list = append(list, postgres.Ident(col.name)+" "+col.typ)
	}
	return strings.Join(list, ", ")
}

// query reads one side in the plan's order.
func (p plan) query(t table) string {
	if p.keyless {
		row := "ROW(" + postgres.Idents(p.fields) + ")::text"
		return fmt.Sprintf(`COPY (SELECT r COLLATE "C" FROM (SELECT %s AS r FROM %s) AS t ORDER BY r COLLATE "C") TO STDOUT`,
			row, t.from())
	}
	var order []string
	for i, k := range p.key {
		term := postgres.Ident("t", k)
		if p.order[i] == byBytes {
			term += `::text COLLATE "C"`
		}
		order = append(order, term)
	}
	var fields []string
	for i, f := range p.fields {
		field := postgres.Ident("t", f)
		if i < len(p.key) && p.order[i] == byBytes {
			field += "::text" // so that it is the very text that the order is by
		}
		fields = append(fields, field)
	}
	return fmt.Sprintf("COPY (SELECT %s FROM %s AS t ORDER BY %s) TO STDOUT",
		strings.Join(fields, ", "), t.from(), strings.Join(order, ", "))
}

// rows merges the two sorted streams.
func (c *comparison) rows(ctx context.Context, p plan, a, b table) error {
	group, ctx := errgroup.WithContext(ctx)
	left := newStream(ctx, group, c.a, p, a)
	right := newStream(ctx, group, c.b, p, b)
	group.Go(func() error {
		defer left.stop()
		defer right.stop()
		return c.merge(p, left, right)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	c.report.Tables = append(c.report.Tables, Table{Name: p.name, RowsA: left.rows, RowsB: right.rows})
	return nil
}

func (c *comparison) merge(p plan, left, right *stream) error {
	if err := left.next(); err != nil {
		return err
	}
	if err := right.next(); err != nil {
		return err
	}
	for !left.end || !right.end {
		order := compareGroups(p, left, right)
		diff := Difference{Table: p.name}
		switch {
		case order < 0:
			diff.Kind, diff.Count = Missing, left.count
			diff.Key, diff.A = p.describe(left)
		case order > 0:
			diff.Kind, diff.Count = Extra, right.count
			diff.Key, diff.B = p.describe(right)
		default:
			diff = p.equalKeys(left, right)
		}
		if diff.Kind != 0 {
			c.report.add(c.opts.Details, diff)
		}
		if order <= 0 {
			if err := left.next(); err != nil {
				return err
			}
		}
		if order >= 0 {
			if err := right.next(); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareGroups orders the groups that the streams stand at. An ended stream sorts last.
func compareGroups(p plan, left, right *stream) int {
	switch {
	case left.end:
		return 1
	case right.end:
		return -1
	}
	for i := range left.key {
		order := byBytes
		if !p.keyless {
			order = p.order[i]
		}
		if c := order.compare(left.key[i], right.key[i]); c != 0 {
			return c
		}
	}
	return 0
}

// compare never meets a null: key columns have none, and the text of a row is not null.
func (o keyOrder) compare(a, b []byte) int {
	if o != byInteger {
		return bytes.Compare(a, b)
	}
	negative := len(a) > 0 && a[0] == '-'
	if other := len(b) > 0 && b[0] == '-'; negative != other {
		if negative {
			return -1
		}
		return 1
	}
	c := len(a) - len(b) // the text of an integer has no leading zeros
	if c == 0 {
		c = bytes.Compare(a, b)
	}
	if negative {
		return -c
	}
	return c
}

// equalKeys is the difference between two groups of the same key, of Kind 0 if there is none.
func (p plan) equalKeys(left, right *stream) Difference {
	diff := Difference{Table: p.name}
	switch {
	case !bytes.Equal(left.line, right.line):
		diff.Kind, diff.Count = Changed, 1
		diff.Key, diff.A, diff.B = p.describeChange(left, right)
	case left.count > right.count:
		diff.Kind, diff.Count = Missing, left.count-right.count
		diff.Key, diff.A = p.describe(left)
	case left.count < right.count:
		diff.Kind, diff.Count = Doubled, right.count-left.count
		diff.Key, diff.B = p.describe(right)
	}
	return diff
}
