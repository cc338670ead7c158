package applier

import (
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// verifyUnit is a table of the target and those of the source whose rows it holds: one, unless the two sides are partitioned
// in different ways.
type verifyUnit struct {
	target        schema.Name
	oid           uint32
	partitioned   bool
	leaves        int // tables with rows of their own, at or below the target
	sources       []schema.Name
	families      [][]schema.Name // each source with the partitioned tables above it
	estimatedRows int64

	key     []string // empty: rows are compared as wholes
	columns []string
	leftOut []string
	order   checksum.Order
	where   string // for the rows of the target that are this replication's; empty for all

	unsynced int64 // changes in quarantine, as of the target's snapshot

	// Set when it cannot be compared.
	outcome applierv1.TableOutcome
	reason  string
}

func (u *verifyUnit) not(outcome applierv1.TableOutcome, format string, args ...any) {
	if u.outcome == applierv1.TableOutcome_TABLE_OUTCOME_UNSPECIFIED {
		u.outcome, u.reason = outcome, fmt.Sprintf(format, args...)
	}
}

// verifyUnits decides what is compared with what, in the order of the targets. position is that of the source's snapshot.
func verifyUnits(source, target schema.Database, tables []*storedTable, position change.LSN) []*verifyUnit {
	byTarget := map[schema.Name]*verifyUnit{}
	var units []*verifyUnit
	for _, t := range tables {
		name := holder(target, t.target, tables)
		u := byTarget[name]
		if u == nil {
			u = &verifyUnit{target: name}
			byTarget[name] = u
			units = append(units, u)
		}
		u.sources = append(u.sources, t.name)
		u.families = append(u.families, family(source, t.name))
		u.estimatedRows += t.estimatedRows
		switch {
		case t.state != tableCopied:
			u.not(applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "the copy of table %s is not finished", t.name)
		case t.position.LSN > position:
			u.not(applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "table %s was copied anew meanwhile", t.name)
		}
	}
	for _, u := range units {
		u.describe(source, target)
	}
	slices.SortFunc(units, func(a, b *verifyUnit) int { return compareText(a.target.SQL(), b.target.SQL()) })
	return units
}

// holder is the table through which the rows of a target are compared: itself, or a partitioned one above it that is the target of
// other tables.
func holder(target schema.Database, name schema.Name, tables []*storedTable) schema.Name {
	found := name
	for _, above := range family(target, name) {
		if slices.ContainsFunc(tables, func(s *storedTable) bool { return s.target == above }) {
			found = above
		}
	}
	return found
}

func (u *verifyUnit) describe(source, target schema.Database) {
	t, found := target.Table(u.target)
	if !found {
		u.not(applierv1.TableOutcome_TABLE_OUTCOME_MISSING, "the replica does not have it")
		return
	}
	u.oid, u.partitioned = t.OID, !t.HasRows()
	u.leaves = countLeaves(target, t)
	var first schema.Table
	for i, name := range u.sources {
		s, found := source.Table(name)
		if !found {
			u.not(applierv1.TableOutcome_TABLE_OUTCOME_MISSING, "the source does not have table %s", name)
			return
		}
		if i == 0 {
			first = s
			u.key, u.columns = keyOf(s), ordinary(s)
		} else if !sameNames(u.columns, ordinary(s)) {
			u.not(applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "tables %s and %s of the source have different columns", u.sources[0], name)
			return
		} else if !slices.Equal(u.key, keyOf(s)) {
			u.key = nil
		}
	}
	u.fit(first, t)
}

// fit finds the columns that both sides have, and how ranges of rows are told apart.
func (u *verifyUnit) fit(source, target schema.Table) {
	for _, name := range u.columns {
		if c, found := target.Column(name); !found || c.Generated != "" {
			u.not(applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "the replica does not have column %s, or computes it", name)
			return
		}
	}
	for _, t := range []schema.Table{source, target} {
		for _, c := range t.Columns {
			if !slices.Contains(u.columns, c.Name) && !slices.Contains(u.leftOut, c.Name) {
				u.leftOut = append(u.leftOut, c.Name)
			}
		}
	}
	if len(u.key) == 0 || len(u.sources) > 1 {
		return
	}
	u.order = checksum.ByKey
	for _, name := range u.key {
		s, _ := source.Column(name)
		t, _ := target.Column(name)
		// NULL is in no range of keys: a replica that allows it there may have such rows.
		if s.TypeOID != t.TypeOID || !checksum.SortsAlike(s.TypeOID) || !t.NotNull {
			u.order = checksum.ByDigest
		}
	}
}

// keyOf are the columns that tell a source's rows apart; nil when no index makes sure of that.
func keyOf(t schema.Table) []string {
	key := t.PrimaryKey
	if len(key) == 0 && t.IdentityIndex != "" {
		key = t.IdentityColumns
	}
	for _, name := range key {
		if c, found := t.Column(name); !found || c.Generated != "" {
			return nil
		}
	}
	return key
}

// ordinary are the columns that are replicated.
func ordinary(t schema.Table) []string {
	names := []string{}
	for _, c := range t.Columns {
		if c.Generated == "" {
			names = append(names, c.Name)
		}
	}
	return names
}

func sameNames(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(name string) bool { return !slices.Contains(b, name) })
}

func countLeaves(d schema.Database, t schema.Table) int {
	if t.HasRows() {
		return 1
	}
	n := 0
	for _, child := range d.Tables {
		if child.IsPartition() && slices.Contains(child.Parents, t.FullName()) {
			n += countLeaves(d, child)
		}
	}
	return n
}

// family is a table and the partitioned ones above it.
func family(d schema.Database, name schema.Name) []schema.Name {
	names := []schema.Name{name}
	for range len(d.Tables) { // a partition's parents end; a broken description must too
		t, found := d.Table(name)
		if !found || !t.IsPartition() || len(t.Parents) != 1 {
			break
		}
		name = t.Parents[0]
		names = append(names, name)
	}
	return names
}

// everyNameCounts refuses a selection with a pattern to be taken, or a name to be left out, that fits none of a replication's tables, each of
// which is given with the partitioned tables above it.
func everyNameCounts(replication string, selection schema.Selection, families [][]schema.Name) error {
	for i, p := range slices.Concat(selection.Include, selection.Exclude) {
		_, exact := p.Exact()
		if fits := slices.ContainsFunc(families, func(f []schema.Name) bool { return slices.ContainsFunc(f, p.Matches) }); !fits && (exact || i < len(selection.Include)) {
			return rpc.Errorf(codes.NotFound, reasonUnknownTable, "no table of replication %s is called %s on the source; `syncline replication show %s` lists its tables", replication, p, replication)
		}
	}
	return nil
}

// selectUnits returns the units of which a source table is selected.
func selectUnits(units []*verifyUnit, selection schema.Selection) []*verifyUnit {
	return slices.DeleteFunc(units, func(u *verifyUnit) bool {
		return !slices.ContainsFunc(u.families, func(f []schema.Name) bool { return selection.Matches(f[0], f[1:]...) })
	})
}

// sameTargets returns the units of the targets that former ones have.
func sameTargets(units, former []*verifyUnit) []*verifyUnit {
	same := make([]*verifyUnit, len(former))
	for i, f := range former {
		at := slices.IndexFunc(units, func(u *verifyUnit) bool { return u.target == f.target })
		if at < 0 {
			same[i] = &verifyUnit{target: f.target}
			same[i].not(applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "it takes no rows of the replication any more")
			continue
		}
		same[i] = units[at]
	}
	return same
}

// onlyThose selects the tables of some units on either side; all when there are none.
func onlyThose(units []*verifyUnit) (source, target schema.Selection, err error) {
	var ofSource, ofTarget []string
	for _, u := range units {
		ofTarget = append(ofTarget, u.target.String())
		for _, f := range u.families {
			for _, name := range f {
				ofSource = append(ofSource, name.String())
			}
		}
	}
	if source, err = schema.ParseSelection(ofSource, nil); err != nil {
		return source, target, err
	}
	target, err = schema.ParseSelection(ofTarget, nil)
	return source, target, err
}
