package access

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Role is what a principal may do.
type Role string

// The roles. Reader, operator and admin each include the ones before; a replicator stands beside them.
const (
	Reader     Role = "reader"
	Replicator Role = "replicator"
	Operator   Role = "operator"
	Admin      Role = "admin"
)

// Roles are all roles.
var Roles = []Role{Reader, Replicator, Operator, Admin}

// rank orders the roles that include one another.
func (r Role) rank() int { return slices.Index([]Role{Reader, Operator, Admin}, r) }

// Includes tells whether the role may do what least may.
func (r Role) Includes(least Role) bool {
	return r == least || r.rank() >= 0 && least.rank() >= 0 && r.rank() >= least.rank()
}

// WholeDatabase is the set of a grant that covers everything.
const WholeDatabase = "*"

// Grant is a set that a replicator may read.
type Grant struct {
	Set string `json:"set"`
	// Parameters have to stand in a request with these values; a request may have others beside them.
	Parameters map[string]string `json:"parameters,omitempty"`
}

func (g Grant) String() string {
	if len(g.Parameters) == 0 {
		return g.Set
	}
	var list []string
	for name, value := range g.Parameters {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return g.Set + ":" + strings.Join(list, ",")
}

// Principal is someone who may call.
type Principal struct {
	Name   string
	Role   Role
	Grants []Grant // of a replicator; it reads nothing without any
}

// wholeDatabase tells whether a replicator may read everything.
func (p *Principal) wholeDatabase() bool {
	return slices.ContainsFunc(p.Grants, func(g Grant) bool { return g.Set == WholeDatabase })
}

const (
	maxNameBytes   = 63
	maxGrants      = 100
	maxGrantBytes  = 200
	maxIdentifying = 1000
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// CheckName refuses what cannot be a principal's name. A name never holds a slash, which ends it in the name of a follower.
func CheckName(name string) error {
	if len(name) > maxNameBytes || !nameForm.MatchString(name) {
		return fmt.Errorf("%q is not a name of 1 to %d characters of a-z, 0-9, - and _ that begins with a letter", name, maxNameBytes)
	}
	return nil
}

// CheckGrants refuses grants that have no meaning.
func CheckGrants(role Role, grants []Grant) error {
	if role != Replicator && len(grants) > 0 {
		return fmt.Errorf("a %s is not bound to sets; only a %s is", role, Replicator)
	}
	if len(grants) > maxGrants {
		return fmt.Errorf("more than %d grants", maxGrants)
	}
	for _, g := range grants {
		switch {
		case g.Set == "":
			return fmt.Errorf("a grant names a set, or %s for the whole database", WholeDatabase)
		case g.Set == WholeDatabase && len(g.Parameters) > 0:
			return fmt.Errorf("the whole database (%s) has no parameters", WholeDatabase)
		case !fits(g.Set):
			return fmt.Errorf("%.40q is not the name of a set", g.Set)
		case len(g.Parameters) > maxGrants:
			return fmt.Errorf("set %s: more than %d parameters", g.Set, maxGrants)
		}
		for name, value := range g.Parameters {
			if name == "" || !fits(name) || !fits(value) {
				return fmt.Errorf("set %s: parameter %.40q: names and values have up to %d bytes and no control characters", g.Set, name, maxGrantBytes)
			}
		}
	}
	return nil
}

func fits(text string) bool {
	return len(text) <= maxGrantBytes && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}
