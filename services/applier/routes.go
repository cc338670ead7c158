package applier

import (
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// routes tells for each source table whether and where its changes go.
type routes struct {
	tables    map[schema.Name]apply.Table
	selection schema.Selection
	ignored   map[schema.Name]bool
	lastCopy  change.LSN // the latest position of a table's copy
}

func newRoutes(tables []*storedTable, selection schema.Selection, ignored map[schema.Name]bool) *routes {
	r := &routes{tables: make(map[schema.Name]apply.Table, len(tables)), selection: selection, ignored: ignored}
	for _, t := range tables {
		r.tables[t.name] = apply.Table{Apply: true, CopyLSN: t.position.LSN, Target: t.target}
		r.lastCopy = max(r.lastCopy, t.position.LSN)
	}
	return r
}

// table returns *apply.NewTableError for a table that is selected and was not there at the last copy.
func (r *routes) table(name schema.Name) (apply.Table, error) {
	if t, ok := r.tables[name]; ok {
		return t, nil
	}
	if r.ignored[name] || !r.selection.Matches(name) {
		return apply.Table{}, nil
	}
	return apply.Table{}, &apply.NewTableError{Table: name}
}
