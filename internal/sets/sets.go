// Package sets holds the meaning of replication sets: which tables belong to one, and which of their rows. A set selects the same in
// the stream, in a dump and in a checksum, because all three ask here. The package does no I/O.
package sets

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/filter/cel"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Limits of a definition.
const (
	maxEntries  = 1000
	MaxNameSize = 63
)

// Spec is a set as a user writes it.
type Spec struct {
	Tables  []Table
	Exclude []string
}

// Table selects rows of the tables that match a pattern.
type Table struct {
	Pattern    string
	Rows       string // a selector; all rows when empty
	Expression string // or the same in the Common Expression Language
	// Columns are those to take, LeaveOut those to take not; all are taken when both are empty.
	Columns, LeaveOut []string
	Operations        []Operation // all when empty
	// Keys are those of the rows to take, with a value for each of KeyColumns; all rows when empty.
	Keys       [][]string
	KeyColumns []string
}

// Operation is what a statement does to a table. Its numbers are those of the protobuf enum SetOperation.
type Operation int

// The operations of a set.
const (
	Insert Operation = iota + 1
	Update
	Delete
	Truncate
)

// FieldError says which part of a definition is wrong.
type FieldError struct {
	Field  string // such as "tables[2].rows"
	Reason error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason.Error() }

func (e *FieldError) Unwrap() error { return e.Reason }

// ErrParameters says that a set is used with other parameters than it has.
var ErrParameters = errors.New("parameters do not fit the set")

// Definition is a set that has been read. It may be used by several goroutines at once.
type Definition struct {
	entries []Entry
	exclude []schema.Pattern
}

// Entry is what a definition says of some tables. A nil selector means all rows, and so do nil keys.
type Entry struct {
	pattern    schema.Pattern
	selector   *filter.Selector
	keys       *filter.Keys
	take       []string // the columns to take, nil for all
	leave      []string // the columns to leave out
	operations []Operation
	field      string // where the selector was written
}

// Parse reads a definition, and returns a *FieldError for what is none.
func Parse(spec Spec) (*Definition, error) {
	if len(spec.Tables) > maxEntries || len(spec.Exclude) > maxEntries {
		return nil, &FieldError{"tables", fmt.Errorf("more than %d patterns; use schema.*", maxEntries)}
	}
	d := &Definition{}
	for i, t := range spec.Tables {
		pattern, err := schema.ParsePattern(t.Pattern)
		if err != nil {
			return nil, &FieldError{fmt.Sprintf("tables[%d].pattern", i), err}
		}
		entry := Entry{pattern: pattern, take: t.Columns, leave: t.LeaveOut, operations: t.Operations}
		if err := entry.parse(t); err != nil {
			err.Field = fmt.Sprintf("tables[%d].%s", i, err.Field)
			return nil, err
		}
		d.entries = append(d.entries, entry)
	}
	for i, text := range spec.Exclude {
		pattern, err := schema.ParsePattern(text)
		if err != nil {
			return nil, &FieldError{fmt.Sprintf("exclude_tables[%d]", i), err}
		}
		d.exclude = append(d.exclude, pattern)
	}
	return d, nil
}

// parse reads what an entry says of rows, columns and operations.
func (e *Entry) parse(t Table) *FieldError {
	var err error
	switch rows, expression := strings.TrimSpace(t.Rows) != "", strings.TrimSpace(t.Expression) != ""; {
	case rows && expression:
		return &FieldError{"expression", errors.New("rows are selected by rows or by an expression, and both are given")}
	case rows:
		e.field = "rows"
		if e.selector, err = filter.Parse([]byte(t.Rows)); err != nil {
			return &FieldError{"rows", err}
		}
	case expression:
		e.field = "expression"
		if e.selector, err = cel.Parse(t.Expression); err != nil {
			return &FieldError{"expression", err}
		}
	}
	switch {
	case len(t.Keys) == 0 && len(t.KeyColumns) > 0:
		return &FieldError{"key_columns", errors.New("they belong to keys, and there are none")}
	case len(t.Keys) > 0 && len(t.KeyColumns) == 0:
		return &FieldError{"key_columns", errors.New("name the columns that the keys are of")}
	case len(t.Keys) > 0:
		if e.keys, err = filter.NewKeys(t.KeyColumns, t.Keys); err != nil {
			return &FieldError{"keys", err}
		}
	}
	if len(t.Columns) > 0 && len(t.LeaveOut) > 0 {
		return &FieldError{"leave_out_columns", errors.New("columns to take are named too, and one of them is needed")}
	}
	for _, o := range t.Operations {
		if o < Insert || o > Truncate {
			return &FieldError{"operations", errors.New("there are insert, update, delete and truncate")}
		}
	}
	return nil
}

// Of is the set of all rows of tables.
func Of(selection schema.Selection) *Definition {
	d := &Definition{exclude: selection.Exclude}
	for _, pattern := range selection.Include {
		d.entries = append(d.entries, Entry{pattern: pattern})
	}
	return d
}

// Selection is the tables of the set.
func (d *Definition) Selection() schema.Selection {
	s := schema.Selection{Exclude: d.exclude}
	for _, e := range d.entries {
		s.Include = append(s.Include, e.pattern)
	}
	return s
}

// everyRow is the entry of a set that names no tables.
var everyRow = Entry{}

// Entry returns what the set says of a table, given the names of the partitioned tables above it; false if the table is not in the
// set. The first entry that matches the table or one above it counts.
func (d *Definition) Entry(name schema.Name, above []schema.Name) (*Entry, bool) {
	if !d.Selection().Matches(name, above...) {
		return nil, false
	}
	if len(d.entries) == 0 {
		return &everyRow, true
	}
	for i := range d.entries {
		e := &d.entries[i]
		if e.pattern.Matches(name) || slices.ContainsFunc(above, e.pattern.Matches) {
			return e, true
		}
	}
	return nil, false
}

// Selects tells whether any table has a selector.
func (d *Definition) Selects() bool {
	return slices.ContainsFunc(d.entries, func(e Entry) bool { return e.selector != nil || e.keys != nil })
}

// Parameters are the names of the parameters that selectors use, sorted.
func (d *Definition) Parameters() []string {
	var names []string
	for _, e := range d.entries {
		if e.selector != nil {
			names = append(names, e.selector.Parameters()...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// CheckParameters returns ErrParameters unless there is a value for each parameter, and none for anything else.
func (d *Definition) CheckParameters(values map[string]string) error {
	known := d.Parameters()
	for _, name := range known {
		if _, given := values[name]; !given {
			return fmt.Errorf("%w: parameter %q is missing (it takes %s)", ErrParameters, name, strings.Join(known, ", "))
		}
	}
	for name := range values {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return fmt.Errorf("%w: it takes none, and %q is given", ErrParameters, name)
			}
			return fmt.Errorf("%w: it has no parameter %q (it takes %s)", ErrParameters, name, strings.Join(known, ", "))
		}
	}
	return nil
}

// Columns are the columns that decide about rows, sorted; none when all rows are meant.
func (e *Entry) Columns() []string {
	var columns []string
	if e.selector != nil {
		columns = e.selector.Columns()
	}
	if e.keys != nil {
		columns = append(columns, e.keys.Columns()...)
	}
	slices.Sort(columns)
	return slices.Compact(columns)
}

// Predicate compiles the selector and the keys for a table with these columns. It is nil when all rows are meant.
func (e *Entry) Predicate(columns []filter.Column, parameters map[string]string) (rows *filter.Predicate, err error) {
	if e.selector != nil {
		if rows, err = e.selector.Compile(columns, parameters); err != nil {
			return nil, err //nolint:wrapcheck // it names the place
		}
	}
	if e.keys == nil {
		return rows, nil
	}
	keys, err := e.keys.Compile(columns)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the place
	}
	return filter.Both(rows, keys), nil
}

// Rows is what is said of rows as text, the same where the same is said; empty when all rows are meant.
func (e *Entry) Rows() string {
	var parts []string
	if e.selector != nil {
		parts = append(parts, e.selector.String())
	}
	if e.keys != nil {
		parts = append(parts, e.keys.String())
	}
	return strings.Join(parts, " ")
}

// Publishes tells whether an operation is replicated.
func (e *Entry) Publishes(o Operation) bool {
	return len(e.operations) == 0 || slices.Contains(e.operations, o)
}

// OnlyInserts tells whether updates or deletes are left out, so that rows of a replica may be ones that the source has no longer.
func (e *Entry) OnlyInserts() bool { return !e.Publishes(Update) || !e.Publishes(Delete) }
