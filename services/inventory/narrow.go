package inventory

import (
	"slices"

	"github.com/seed0419d559/syncline/internal/schema"
)

// onlyOwn takes out of the description of a set's tables what names tables and functions beside the set: foreign keys to them, parents
// by inheritance, and everything that no table of the set rests on. A partition keeps the name of the table above it.
func onlyOwn(db schema.Database) schema.Database {
	needed := map[schema.Object]bool{}
	note := func(needs []schema.Need) {
		for _, n := range needs {
			needed[schema.Object{Kind: n.Kind, Identity: n.Identity}] = true
		}
	}
	beside := func(name schema.Name) bool {
		_, in := db.Table(name)
		return !in
	}
	db.Tables = slices.Clone(db.Tables)
	for i := range db.Tables {
		t := &db.Tables[i]
		note(t.Needs)
		t.Constraints = slices.DeleteFunc(slices.Clone(t.Constraints), func(k schema.Constraint) bool { return k.Type == schema.ConstraintForeign && beside(k.References) })
		if !t.IsPartition() {
			t.Parents = slices.DeleteFunc(slices.Clone(t.Parents), beside)
		}
		if len(t.Constraints) == 0 {
			t.Constraints = nil
		}
		if len(t.Parents) == 0 {
			t.Parents = nil
		}
	}
	for _, t := range db.Types {
		note(t.Needs)
	}
	db.Objects = slices.DeleteFunc(slices.Clone(db.Objects), func(o schema.Object) bool { return !needed[o] })
	if len(db.Objects) == 0 {
		db.Objects = nil
	}
	return db
}
