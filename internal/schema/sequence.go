package schema

import (
	"fmt"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

func (p *planner) sequences() {
	for _, s := range p.source.Sequences {
		if _, exists := p.target.sequence(s.FullName()); p.wantsSequence(s) && !exists {
			p.before(StatementSequence, s.Owner, s.FullName().String(),
				fmt.Sprintf("CREATE SEQUENCE %s AS %s %s", s.FullName().SQL(), s.Type, sequenceOptions(s)))
		}
	}
}

func sequenceOptions(s Sequence) string {
	cycle := "NO CYCLE"
	if s.Cycle {
		cycle = "CYCLE"
	}
	return fmt.Sprintf("INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d CACHE %d %s", s.Increment, s.Min, s.Max, s.Start, s.Cache, cycle)
}

func (p *planner) sequenceOwners() {
	for _, s := range p.source.Sequences {
		existing, _ := p.target.sequence(s.FullName())
		if !p.wantsSequence(s) || s.Owner.IsZero() || !p.wanted[s.Owner] || existing.Owner == s.Owner && existing.OwnerColumn == s.OwnerColumn {
			continue
		}
		p.after(StatementSequenceOwner, s.Owner, s.FullName().String(), fmt.Sprintf("ALTER SEQUENCE %s OWNED BY %s",
			s.FullName().SQL(), postgres.Ident(s.Owner.Schema, s.Owner.Name, s.OwnerColumn)), false)
	}
}

// UnreadableSequencesError lists sequences whose values the reading role may not see.
type UnreadableSequencesError struct {
	Sequences []Name
	Role      string
}

func (e *UnreadableSequencesError) Error() string {
	names := make([]string, len(e.Sequences))
	for i, n := range e.Sequences {
		names[i] = n.SQL()
	}
	return fmt.Sprintf("read sequence values: role %s may not read %d of the sequences; run on the source: GRANT SELECT ON SEQUENCE %s TO %s",
		display(e.Role), len(names), strings.Join(names, ", "), postgres.Ident(e.Role))
}

// SequenceStatements sets the sequences of the target to the values that the source's had when they were read. A
// sequence of another name that the same column owns is taken for the source's. Those that the target lacks are left
// out. It returns an *UnreadableSequencesError when a value is not known.
func SequenceStatements(source, target Database) ([]Statement, error) {
	byName := make(map[Name]bool, len(target.Sequences))
	byOwner := make(map[sequenceOwner]Name, len(target.Sequences))
	for _, s := range target.Sequences {
		byName[s.FullName()] = true
		if !s.Owner.IsZero() {
			byOwner[sequenceOwner{s.Owner, s.OwnerColumn}] = s.FullName()
		}
	}
	var statements []Statement
	var unreadable []Name
	for _, s := range source.Sequences {
		name := s.FullName()
		if !byName[name] {
			owned, found := byOwner[sequenceOwner{s.Owner, s.OwnerColumn}]
			if !found {
				continue
			}
			name = owned
		}
		if s.Value == nil {
			unreadable = append(unreadable, s.FullName())
			continue
		}
		statements = append(statements, Statement{
			Kind: StatementSequenceValue, Table: s.Owner, Name: name.String(),
			SQL: fmt.Sprintf("SELECT pg_catalog.setval(%s::pg_catalog.regclass, %d, %t)",
				strings.TrimSpace(postgres.Literal(name.SQL())), s.Value.Last, s.Value.Called),
		})
	}
	if unreadable != nil {
		return nil, &UnreadableSequencesError{Sequences: unreadable, Role: source.Role.Name}
	}
	return statements, nil
}

type sequenceOwner struct {
	table  Name
	column string
}
