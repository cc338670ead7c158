package apply

import "fmt"

// What the planner may do in a transaction that applies changes. Plans are made once and stay while tables grow: of a table with a few rows the
// planner takes the whole, and would again and again when it has millions. So rows are looked up by an index, whatever the statistics and the
// server's settings say, and each statement that needs something else says so. PostgreSQL does what is forbidden if there is no other way.

// joins are the planner's settings.
type joins struct{ nestloop, hashjoin, scans bool }

var (
	lookUp   = joins{nestloop: true}
	walk     = joins{hashjoin: true}
	anything = joins{nestloop: true, hashjoin: true, scans: true}
)

const setJoins = "set up the planner"

// sql is a list of expressions that set them up to the end of the transaction.
func (j joins) sql() string {
	set := func(name string, on bool) string {
		value := "off"
		if on {
			value = "on"
		}
		return fmt.Sprintf("pg_catalog.set_config('%s', '%s', true)", name, value)
	}
	return set("enable_nestloop", j.nestloop) + ", " + set("enable_hashjoin", j.hashjoin) + ", " + set("enable_mergejoin", j.scans) + ", " + set("enable_seqscan", j.scans)
}
