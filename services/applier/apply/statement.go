package apply

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// statement is the SQL of one kind of row operation on one plan.
type statement struct {
	sql    string
	params []param
	name   string     // as prepared on the session; "" until then
	exact  *statement // fails unless it touches one row; nil until it was asked for
}

// param says where a statement's parameter comes from.
type param struct {
	column int
	old    bool // from the old row, else from the new one
}

// Operation is what happens to a row.
type Operation byte

// The row operations.
const (
	Insert Operation = 'I'
	Update Operation = 'U'
	Delete Operation = 'D'
)

// value is a column's value in a row: its kind as in the change log ('t', 'n', 'u') and its text.
type value struct {
	kind byte
	text []byte
}

var errNoLocator = errors.New("the change does not say which row it concerns: the table has no usable replica identity on the source")

// statementFor returns the statement of one operation, from the plan's cache where it was built before. oldRow is nil
// when the change carries none.
func (p *Plan) statementFor(op Operation, oldRow, newRow []value, key []byte) (*statement, []byte, error) {
	key = append(key[:0], byte(op))
	replace := false
	if op == Update {
		replace = p.mustReplace(oldRow, newRow)
		for _, v := range newRow {
			key = append(key, normalKind(v.kind))
		}
	}
	if op != Insert {
		key = append(key, boolByte(replace), boolByte(oldRow != nil))
		if p.locator == nil {
			for _, v := range oldRow {
				key = append(key, v.kind)
			}
		}
	}
	if s, ok := p.statements[string(key)]; ok {
		return s, key, nil
	}
	s, err := p.build(op, oldRow, newRow, replace)
	if err != nil {
		return nil, key, err
	}
	p.statements[string(key)] = s
	return s, key, nil
}

// normalKind folds null and text, which make no difference to SET.
func normalKind(kind byte) byte {
	if kind == 'u' {
		return 'u'
	}
	return 't'
}

func boolByte(b bool) byte {
	if b {
		return '1'
	}
	return '0'
}

// mustReplace tells whether an update has to delete and insert the row, because it may change a GENERATED ALWAYS
// identity column, which cannot stand in SET.
func (p *Plan) mustReplace(oldRow, newRow []value) bool {
	for i, c := range p.columns {
		if c == nil || !c.IdentityAlways || newRow[i].kind == 'u' {
			continue
		}
		known := oldRow != nil && (oldRow[i].kind == 't' || p.Relation.Columns[i].Key)
		switch {
		case known && (oldRow[i].kind != newRow[i].kind || string(oldRow[i].text) != string(newRow[i].text)):
			return true
		case !known && !p.Relation.Columns[i].Key:
			return true
		}
	}
	return false
}

func (p *Plan) build(op Operation, oldRow, newRow []value, replace bool) (*statement, error) {
	b := builder{plan: p}
	switch op {
	case Insert:
		b.insert()
	case Delete:
		if oldRow == nil {
			return nil, errNoLocator
		}
		b.write("DELETE FROM ", b.table())
		b.where(oldRow, true)
	case Update:
		located, fromOld := newRow, false
		if oldRow != nil {
			located, fromOld = oldRow, true
		}
		if p.locator == nil && oldRow == nil {
			return nil, errNoLocator
		}
		if replace {
			b.replace(located, fromOld, newRow)
		} else {
			b.update(located, fromOld, newRow)
		}
	default:
		return nil, fmt.Errorf("unknown operation %q", byte(op))
	}
	if b.err != nil {
		return nil, b.err
	}
	return &statement{sql: b.sql.String(), params: b.params}, nil
}

// builder writes one statement.
type builder struct {
	plan   *Plan
	sql    strings.Builder
	params []param
	err    error
}

func (b *builder) write(parts ...string) {
	for _, part := range parts {
		b.sql.WriteString(part)
	}
}

func (b *builder) param(column int, old bool) string {
	b.params = append(b.params, param{column, old})
	return fmt.Sprintf("$%d", len(b.params))
}

// table names the target; ONLY keeps an ordinary table's inheritance children out, whose changes come under their own names.
func (b *builder) table() string {
	name := postgres.Ident(b.plan.Target.Schema, b.plan.Target.Name)
	if b.plan.Target.Partitioned {
		return name
	}
	return "ONLY " + name
}

func (b *builder) insert() {
	p := b.plan
	b.write("INSERT INTO ", postgres.Ident(p.Target.Schema, p.Target.Name))
	if len(p.copyFields) == 0 {
		b.write(" DEFAULT VALUES")
		return
	}
	b.write(" (", p.columnList(), ") OVERRIDING SYSTEM VALUE VALUES (")
	for n, i := range p.copyFields {
		if n > 0 {
			b.write(", ")
		}
		b.write(b.param(i, false))
	}
	b.write(")")
}

func (b *builder) update(located []value, fromOld bool, newRow []value) {
	p := b.plan
	var set []string
	for i, c := range p.columns {
		if c == nil || newRow[i].kind == 'u' || c.IdentityAlways || (p.inLocator[i] && !fromOld) {
			continue
		}
		set = append(set, postgres.Ident(c.Name)+" = "+b.param(i, false))
	}
	if len(set) == 0 {
		// Nothing to set, yet the row must be there.
		b.write("SELECT FROM ", b.table())
		b.where(located, fromOld)
		b.write(" FOR UPDATE")
		return
	}
	b.write("UPDATE ", b.table(), " SET ", strings.Join(set, ", "))
	b.where(located, fromOld)
}

// replace deletes the row and inserts it again with its new values, keeping what is unchanged or the target's own.
func (b *builder) replace(located []value, fromOld bool, newRow []value) {
	p := b.plan
	b.write("WITH gone AS (DELETE FROM ", b.table())
	b.where(located, fromOld)
	b.write(" RETURNING *) INSERT INTO ", postgres.Ident(p.Target.Schema, p.Target.Name), " (", p.columnList())
	for _, name := range p.extra {
		b.write(", ", postgres.Ident(name))
	}
	b.write(") OVERRIDING SYSTEM VALUE SELECT ")
	for n, i := range p.copyFields {
		if n > 0 {
			b.write(", ")
		}
		if newRow[i].kind == 'u' {
			b.write("gone.", postgres.Ident(p.columns[i].Name))
		} else {
			b.write(b.param(i, false))
		}
	}
	for _, name := range p.extra {
		b.write(", gone.", postgres.Ident(name))
	}
	b.write(" FROM gone")
}

// where finds the one row: by the locator's columns, else by comparing every column and taking one of equal rows.
func (b *builder) where(row []value, old bool) {
	p := b.plan
	b.write(" WHERE ")
	if p.locator != nil {
		for n, i := range p.locator {
			if n > 0 {
				b.write(" AND ")
			}
			if row[i].kind == 'u' {
				b.err = fmt.Errorf("%w (column %q is not in the change)", errNoLocator, p.columns[i].Name)
			}
			b.write(postgres.Ident(p.columns[i].Name), " ", p.columns[i].Operator, " ", b.param(i, old))
		}
		return
	}
	id := "ctid"
	if p.Target.Partitioned {
		id = "(tableoid, ctid)"
	}
	b.write(id, " = (SELECT ", strings.Trim(id, "()"), " FROM ", b.table(), " WHERE true")
	for i, c := range p.columns {
		if c == nil || row[i].kind == 'u' {
			continue
		}
		name := postgres.Ident(c.Name)
		if row[i].kind == 'n' {
			// IS NULL would also hold for a composite of nulls.
			b.write(" AND ", name, " IS NOT DISTINCT FROM NULL")
			continue
		}
		if c.Equality != EqualityNone {
			b.write(" AND ", name, " ", c.Operator, " ", b.param(i, old))
		} else {
			b.write(" AND ", name, " IS DISTINCT FROM NULL") // format makes '' of NULL
		}
		if c.Equality != EqualityExact {
			b.write(" AND pg_catalog.format('%s', ", name, `) COLLATE "C" = `, b.param(i, old))
		}
	}
	b.write(" LIMIT 1)")
}

func (p *Plan) columnList() string {
	names := make([]string, len(p.copyFields))
	for n, i := range p.copyFields {
		names[n] = p.columns[i].Name
	}
	return postgres.Idents(names)
}
