package sets

import (
	"errors"
	"fmt"
	"slices"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/schema"
)

// SpecOf is a set as it comes in a message.
func SpecOf(spec *loggerv1.SetSpec) Spec {
	s := Spec{Exclude: spec.GetExcludeTables()}
	for _, t := range spec.GetTables() {
		table := Table{
			Pattern: t.GetPattern(), Rows: t.GetRows(), Expression: t.GetExpression(),
			Columns: t.GetColumns(), LeaveOut: t.GetLeaveOutColumns(), KeyColumns: t.GetKeyColumns(),
		}
		for _, o := range t.GetOperations() {
			table.Operations = append(table.Operations, Operation(o))
		}
		for _, key := range t.GetKeys() {
			table.Keys = append(table.Keys, key.GetValues())
		}
		s.Tables = append(s.Tables, table)
	}
	return s
}

// FillKeys names the key columns of entries that leave them out: those of the primary key of the tables that they stand for. It changes
// the message, and returns a *FieldError where there is no such key or more than one.
func FillKeys(spec *loggerv1.SetSpec, db schema.Database) error {
	for i, t := range spec.GetTables() {
		if len(t.GetKeys()) == 0 || len(t.GetKeyColumns()) > 0 {
			continue
		}
		columns, err := keyOfAll(spec, i, db)
		if err != nil {
			return &FieldError{fmt.Sprintf("tables[%d].key_columns", i), err}
		}
		t.KeyColumns = columns
	}
	return nil
}

// keyOfAll is the primary key of all tables that an entry stands for.
func keyOfAll(spec *loggerv1.SetSpec, at int, db schema.Database) (key []string, err error) {
	patterns := Spec{Exclude: spec.GetExcludeTables()}
	for _, t := range spec.GetTables() {
		patterns.Tables = append(patterns.Tables, Table{Pattern: t.GetPattern()})
	}
	d, err := Parse(patterns)
	if err != nil {
		return nil, err
	}
	for _, t := range db.Tables {
		entry, in := d.Entry(t.FullName(), Above(db, t))
		switch {
		case !in || entry != &d.entries[at]:
			continue
		case len(t.PrimaryKey) == 0:
			return nil, fmt.Errorf("table %s has no primary key: name the columns that the keys are of", t.FullName())
		case key != nil && !slices.Equal(key, t.PrimaryKey):
			return nil, fmt.Errorf("table %s has another primary key than others that the pattern matches: name the columns that the keys are of, or use a pattern for each", t.FullName())
		}
		key = t.PrimaryKey
	}
	if key == nil {
		return nil, errors.New("no table matches the pattern: name the columns that the keys are of")
	}
	return key, nil
}
