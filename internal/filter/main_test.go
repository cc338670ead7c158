package filter

import (
	"os"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// kinds has a column of each family, and of some types that are compared by their text.
var kinds = []Column{
	{"b", 16, "boolean"}, {"i2", 21, "smallint"}, {"i4", 23, "integer"}, {"i8", 20, "bigint"}, {"o", 26, "oid"}, {"n", 1700, "numeric"},
	{"f4", 700, "real"}, {"f8", 701, "double precision"}, {"t", 25, "text"}, {"vc", 1043, "character varying(20)"},
	{"bp", 1042, "character(6)"}, {"nm", 19, "name"}, {"u", 2950, "uuid"}, {"d", 1082, "date"}, {"ts", 1114, "timestamp without time zone"},
	{"tz", 1184, "timestamp with time zone"}, {"e", 70001, "mood"}, {"ip", 869, "inet"}, {"js", 114, "json"}, {"by", 17, "bytea"},
	{"rc", 2205, "regclass"},
}

func parse(t testing.TB, selector string) *Selector {
	t.Helper()
	s, err := Parse([]byte(selector))
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	return s
}

func compile(t testing.TB, selector string, parameters map[string]string) *Predicate {
	t.Helper()
	p, err := parse(t, selector).Compile(kinds, parameters)
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	return p
}
