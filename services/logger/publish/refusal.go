package publish

import (
	"fmt"
	"strings"

	"github.com/seed0419d559/syncline/internal/schema"
)

// Refusal is a selected table that is not captured, why, and the ways out.
type Refusal struct {
	Table  schema.Name
	Reason string
	Mend   string
	SQL    string // a statement that mends it; empty when every one needs a decision
	// Owner is the role that the table belongs to, when that is what is wrong; OwnerSuper says that it is a superuser.
	Owner      string
	OwnerSuper bool
}

func (r Refusal) String() string {
	return fmt.Sprintf("table %s is not captured: %s; %s", r.Table, r.Reason, r.Mend)
}

// Of tables with the same reason a summary describes so many with the ways out, and names so many more.
const (
	describedAlike = 3
	namedAlike     = 5
)

// Summary describes refusals in few texts: a database may have thousands of tables that belong to somebody else.
func Summary(refusals []Refusal) []string {
	alike := make(map[string][]Refusal, len(refusals))
	var order []string
	for _, r := range refusals {
		if alike[r.Reason] == nil {
			order = append(order, r.Reason)
		}
		alike[r.Reason] = append(alike[r.Reason], r)
	}
	var list []string
	for _, reason := range order {
		group := alike[reason]
		described := min(len(group), describedAlike)
		for _, r := range group[:described] {
			list = append(list, r.String())
		}
		group = group[described:]
		var names []string
		for _, r := range group[:min(len(group), namedAlike)] {
			names = append(names, r.Table.String())
		}
		if names != nil {
			list[len(list)-1] += "; the same holds for " + strings.Join(names, ", ")
		}
		if more := len(group) - len(names); more > 0 {
			list[len(list)-1] += fmt.Sprintf(" and %d more", more)
		}
	}
	return list
}
