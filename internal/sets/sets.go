// Package sets holds the meaning of replication sets: which tables belong to one, and which of their rows. A set selects the same in
// the stream, in a dump and in a checksum, because all three ask here. The package does no I/O.
package sets

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/filter"
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
	Pattern string
	Rows    string // a selector; all rows when empty
}

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

// Entry is what a definition says of some tables. A nil selector means all rows.
type Entry struct {
	pattern  schema.Pattern
	selector *filter.Selector
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
		entry := Entry{pattern: pattern}
		if strings.TrimSpace(t.Rows) != "" {
			if entry.selector, err = filter.Parse([]byte(t.Rows)); err != nil {
				return nil, &FieldError{fmt.Sprintf("tables[%d].rows", i), err}
			}
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
	return slices.ContainsFunc(d.entries, func(e Entry) bool { return e.selector != nil })
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
	if e.selector == nil {
		return nil
	}
	return e.selector.Columns()
}

// Predicate compiles the selector for a table with these columns. It is nil when all rows are meant.
func (e *Entry) Predicate(columns []filter.Column, parameters map[string]string) (*filter.Predicate, error) {
	if e.selector == nil {
		return nil, nil //nolint:nilnil // all rows are meant, which is no error
	}
	return e.selector.Compile(columns, parameters) //nolint:wrapcheck // it names the place
}

// Rows is the selector as text, the same for selectors that are equal; empty when all rows are meant.
func (e *Entry) Rows() string {
	if e.selector == nil {
		return ""
	}
	return e.selector.String()
}
