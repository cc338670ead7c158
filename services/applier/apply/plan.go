package apply

import (
	"fmt"
	"slices"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// MismatchError says that a relation's rows cannot be written to the target table. It does not pass by itself.
type MismatchError struct {
	Table  schema.Name
	Reason string
}

func (e *MismatchError) Error() string { return fmt.Sprintf("table %s: %s", e.Table, e.Reason) }

// Plan is how the rows of one relation version are written to one target table. Columns are matched by name.
type Plan struct {
	Relation *change.Relation
	Target   *Target
	// columns[i] is the target column of source column i, nil when the target computes it.
	columns []*TargetColumn
	// locator are the source columns that find a row, as indexes; nil when the whole row is compared.
	locator   []int
	inLocator []bool
	// keyed tells that the locator finds at most one row of the target, so that changes can be netted by it.
	keyed          bool
	identityAlways bool // it has a column that cannot stand in SET
	// extra are the target's written columns that the source does not have.
	extra      []string
	statements map[string]*statement // of single operations; the executor's
	sets       map[string]*statement // of sets; the engine's, but for their names
	// binary[i] is how the values of source column i travel in sets and in COPY; nil: as text. The engine's.
	binary []binaryForm
	// arrayBytes is how large the array of each source column was in the latest set: the next one has room for as much. The engine's.
	arrayBytes []int
	copySQL    string
	// copyBinarySQL is copySQL for rows in the binary format.
	copyBinarySQL string
	copyGuard     copyGuard // before rows in the binary format; the executor's
	copyFields    []int     // source columns of copySQL, in its order
	holding       *holding  // how its rows are held; the executor's, nil until it was asked for
}

// NewPlan matches a relation version with a target table. It returns a *MismatchError that names what is missing.
func NewPlan(relation *change.Relation, target *Target) (*Plan, error) {
	p := &Plan{
		Relation: relation, Target: target,
		columns: make([]*TargetColumn, len(relation.Columns)), inLocator: make([]bool, len(relation.Columns)),
		binary:     make([]binaryForm, len(relation.Columns)),
		arrayBytes: make([]int, len(relation.Columns)),
		statements: map[string]*statement{}, sets: map[string]*statement{},
	}
	source := make(map[string]int, len(relation.Columns))
	for i, c := range relation.Columns {
		source[c.Name] = i
		column := target.column(c.Name)
		if column == nil {
			return nil, &MismatchError{nameOf(target), fmt.Sprintf(
				"the replica has no column %q, which the source has; add it on the replica (ALTER TABLE … ADD COLUMN), then start the replication again", c.Name)}
		}
		if column.Generated {
			continue
		}
		p.columns[i] = column
		p.identityAlways = p.identityAlways || column.IdentityAlways
		switch {
		case !column.HasArray:
		case column.Enum:
			p.binary[i] = appendAsItIs
		default:
			p.binary[i] = binaryForms[column.TypeOID]
		}
		p.copyFields = append(p.copyFields, i)
	}
	for _, c := range target.Columns {
		if _, ok := source[c.Name]; !ok && !c.Generated {
			p.extra = append(p.extra, c.Name)
		}
	}
	p.chooseLocator(source)
	for _, i := range p.locator {
		p.inLocator[i] = true
	}
	p.keyed = p.locatorIsKey()
	p.copySQL, p.copyBinarySQL = copyStatement(p, ""), copyStatement(p, " (FORMAT binary)")
	p.copyGuard = binaryGuard(p)
	return p, nil
}

// chooseLocator takes the source's key, or, where the source sends whole old rows, a key of the target.
func (p *Plan) chooseLocator(source map[string]int) {
	if p.Relation.Identity != change.IdentityFull {
		for i, c := range p.Relation.Columns {
			if c.Key && p.columns[i] != nil {
				p.locator = append(p.locator, i)
			}
		}
		return
	}
	for _, key := range p.Target.UniqueKeys {
		locator := make([]int, 0, len(key))
		for _, name := range key {
			if i, ok := source[name]; ok && p.columns[i] != nil {
				locator = append(locator, i)
			}
		}
		if len(locator) == len(key) {
			p.locator = locator
			return
		}
	}
}

// locatorIsKey tells whether the target has a unique key whose columns the locator covers.
func (p *Plan) locatorIsKey() bool {
	for _, key := range p.Target.UniqueKeys {
		covered := true
		for _, name := range key {
			covered = covered && slices.ContainsFunc(p.locator, func(i int) bool { return p.columns[i].Name == name })
		}
		if covered && len(p.locator) > 0 {
			return true
		}
	}
	return false
}
