package applier

import (
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// routes tells for each source table whether and where its changes go.
type routes struct {
	tables    map[schema.Name]apply.Table
	selection schema.Selection
	ignored   map[schema.Name]ignored
	lastCopy  change.LSN // the latest position of a table's copy
	// everything says that whatever comes is selected, as in the stream of a set.
	everything bool
}

// ignored is a table that was gone again when a copy was to be made.
type ignored struct {
	at  change.LSN // when it was named
	oid uint32     // 0 when not known; another table of the name has another
}

func newRoutes(tables []*storedTable, selection schema.Selection, ignored map[schema.Name]ignored, parameters map[string]string) *routes {
	r := &routes{tables: make(map[schema.Name]apply.Table, len(tables)), selection: selection, ignored: ignored}
	for _, t := range tables {
		route := apply.Table{Apply: true, OID: t.oid, CopyLSN: t.position.LSN, Target: t.target, Own: t.own}
		if selector := t.selector; selector != "" {
			target := t.target
			route.Rows = func(columns []filter.Column) (string, error) {
				return ownCondition(selector, columns, parameters, target)
			}
		}
		r.tables[t.name] = route
		r.lastCopy = max(r.lastCopy, t.position.LSN)
	}
	return r
}

// table is false for a table that is selected and was not there at the last copy.
func (r *routes) table(name schema.Name, oid uint32) (apply.Table, bool) {
	if gone, ok := r.ignored[name]; ok && gone.oid == oid {
		return apply.Table{}, true
	}
	if t, ok := r.tables[name]; ok {
		return t, true
	}
	return apply.Table{}, !r.everything && !r.selection.Matches(name)
}

// captured tells whether a table that is captured from a commit LSN on needs a copy: it has none, or one from before.
func (r *routes) captured(name schema.Name, from change.LSN) bool {
	if gone, ok := r.ignored[name]; ok && gone.at >= from {
		return false
	}
	if t, ok := r.tables[name]; ok {
		return t.CopyLSN <= from
	}
	return r.everything || r.selection.Matches(name)
}
