package filter

import (
	"fmt"
	"strings"
	"testing"
)

// selectors have each operator on each family.
var selectors = []string{
	`{"t": "acme"}`,
	`{"t": {"$param": "org"}}`,
	`{"t": "it's \\ a \"test\"\n$1 ; --"}`,
	`{"t": {"$gte": "a", "$lt": "b"}, "vc": {"$ne": "ü"}}`,
	`{"nm": {"$in": ["x", "a", {"$param": "org"}]}}`,
	`{"bp": {"$nin": ["a  ", "b"]}}`,
	`{"t": {"$exists": true}, "i4": {"$exists": false}}`,
	`{"b": true, "$not": {"b": {"$ne": false}}}`,
	`{"i4": {"$gte": 18, "$lt": 65.0}}`,
	`{"i2": {"$gt": 18.5}}`,
	`{"i8": {"$in": [1, 2.5, 9223372036854775807]}}`,
	`{"i8": {"$in": [3, 1, 9223372036854775807]}}`,
	`{"o": {"$lte": 4294967295}}`,
	`{"i8": {"$ne": 9223372036854775808}}`,
	`{"n": {"$gt": 1e-400, "$lt": 123456789012345678901234567890.5}}`,
	`{"n": {"$in": ["NaN", "Infinity", "-Infinity", -0.0]}}`,
	`{"f4": {"$lt": 0.1}, "f8": {"$gte": "-Infinity"}}`,
	`{"u": {"$gt": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}}`,
	`{"d": {"$gte": "0044-03-15 BC", "$lt": "5874897-12-31"}}`,
	`{"ts": {"$in": ["2026-12-31T24:00", "2026-01-31", "infinity", "4714-11-24 00:00:00 BC"]}}`,
	`{"tz": {"$lte": "2026-03-29T02:30:00.5+01:30"}}`,
	`{"e": "happy", "ip": {"$nin": ["10.0.0.1"]}, "js": {"$exists": true}, "by": {"$ne": "\\x00"}}`,
	`{"t": {"$regex": "^a.c$"}, "js": {"$regex": "(?s)\"a\".*?[^0-9_a-f]+\\d{2,}(?:x|yz)?"}}`,
	`{"t": {"$regex": "(?i)kéß|[α-ω]{1,3}|😀"}}`,
	`{"$or": [{"i4": {"$lt": 0}}, {"$nor": [{"t": "a"}, {"b": false}]}, {"t": {"$not": {"$eq": "b", "$ne": "c"}}}]}`,
}

func TestSQL(t *testing.T) {
	var b strings.Builder
	for _, selector := range selectors {
		fmt.Fprintf(&b, "-- %s\n%s;\n", strings.ReplaceAll(selector, "\n", " "), compile(t, selector, map[string]string{"org": "acme"}).SQL())
	}
	golden(t, "testdata/selectors.sql", b.String())
}
