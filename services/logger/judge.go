package logger

import (
	"fmt"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
)

// judge returns a row operation as the set sees it, without the columns that are left out. It tells whether anything is left of it. What
// it returns is valid until the next call.
func (t *selectedTable) judge(c *block.Change) (out block.Change, in bool, err error) {
	if !t.entry.Publishes(sets.Operation(c.Operation)) {
		return *c, false, nil
	}
	if out, in, err = t.choose(c); !in || err != nil || t.take == nil {
		return out, in, err
	}
	if out.HasOld {
		t.old = out.Old.Project(t.take, t.old)
		out.Old = t.old
	}
	if out.HasNew {
		t.new = out.New.Project(t.take, t.new)
		out.New = t.new
	}
	// An update of nothing that is taken is none.
	unseen := out.Operation == block.Update && out.HasOld && !out.OldIsKey && out.New.Same(out.Old)
	return out, !unseen, nil
}

// choose tells what the operation is to the set: an update may be the insert of a row that enters, or the delete of one that leaves.
func (t *selectedTable) choose(c *block.Change) (out block.Change, in bool, err error) {
	if t.rows == nil {
		return *c, true, nil
	}
	if c.Operation == block.Insert {
		in, err = t.matches(c.New, block.Row{})
		return *c, in, err
	}
	if t.undecidable != nil {
		return *c, false, t.undecidable
	}
	if c.Operation == block.Delete {
		in, err = t.matches(c.Old, block.Row{})
		return *c, in, err
	}
	after, err := t.matches(c.New, c.Old)
	if err != nil {
		return *c, false, err
	}
	before := after // no old row is sent when the identity, in which the selector's columns are, did not change
	if c.HasOld {
		if before, err = t.matches(c.Old, block.Row{}); err != nil {
			return *c, false, err
		}
	}
	switch {
	case before && !after:
		return block.Change{Operation: block.Delete, Relation: c.Relation, OldIsKey: c.OldIsKey, HasOld: true, Old: c.Old}, true, nil
	case !before && after:
		out = block.Change{Operation: block.Insert, Relation: c.Relation, HasNew: true, New: c.New}
		out.New, err = t.whole(c)
		return out, true, err
	}
	return *c, after, nil
}

// whole returns the new row of an update with all its values.
func (t *selectedTable) whole(c *block.Change) (block.Row, error) {
	old := c.Old
	if c.OldIsKey {
		old = block.Row{} // it has nulls for what it does not tell
	}
	row, whole := c.New.Fill(old)
	if !whole {
		return row, fmt.Errorf("table %s: an update brings a row into the set whose large values it does not repeat, so the row is not known: "+
			"ALTER TABLE %s REPLICA IDENTITY FULL, and copy the table anew", t.name(), t.name().SQL())
	}
	return row, nil
}

func (t *selectedTable) name() schema.Name {
	return schema.Name{Schema: t.full.Schema, Name: t.full.Name}
}

// matches tells whether the set selects a row. Values that the row does not repeat are those of the row before.
func (t *selectedTable) matches(row, before block.Row) (bool, error) {
	needed := t.needed
	columns, old := row.Columns(), before.Columns()
	for i := 0; len(needed) > 0 && columns.More(); i++ {
		kind, value := columns.Next()
		oldKind, oldValue := old.Next()
		if i != needed[0] {
			continue
		}
		needed = needed[1:]
		if kind == block.ValueUnchanged {
			kind, value = oldKind, oldValue
		}
		switch kind {
		case block.ValueText:
			t.values[i] = filter.Value{Text: value}
		case block.ValueNull:
			t.values[i] = filter.Value{Null: true}
		default:
			return false, fmt.Errorf("table %s: column %q is not in the log, because the update did not change it", t.name(), t.full.Columns[i].Name)
		}
	}
	if len(needed) > 0 {
		return false, fmt.Errorf("table %s: a row has fewer columns than its table", t.name())
	}
	in, err := t.rows.Matches(t.values)
	if err != nil {
		return false, fmt.Errorf("table %s: %w", t.name(), err)
	}
	return in, nil
}
