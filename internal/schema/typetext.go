package schema

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// typeText is format_type's text taken apart: timestamp(3) with time zone[] is base "timestamp with time zone",
// modifiers [3], one dimension (PostgreSQL keeps no more).
type typeText struct {
	base      string
	modifiers []int
	array     bool
}

var modifierText = regexp.MustCompile(`\((\d+(?:,-?\d+)*)\)`)

func parseTypeText(s string) typeText {
	var t typeText
	s, t.array = strings.CutSuffix(s, "[]")
	if strings.HasPrefix(s, `"`) || strings.Contains(s, ".") { // a user's type: its modifiers are its own business
		t.base = s
		return t
	}
	if m := modifierText.FindStringSubmatchIndex(s); m != nil {
		for _, n := range strings.Split(s[m[2]:m[3]], ",") {
			v, _ := strconv.Atoi(n) // the expression has matched digits only
			t.modifiers = append(t.modifiers, v)
		}
		s = s[:m[0]] + s[m[1]:]
	}
	t.base = s
	return t
}

var needlessQuotes = regexp.MustCompile(`"([a-z_][a-z0-9_$]*)"`)

// unquoted is an SQL text for being compared: the server quotes few names, and a text with other names than the source's quotes all.
func unquoted(sql string) string { return needlessQuotes.ReplaceAllString(sql, "$1") }

// typeFit says how values of one type go into a column of another.
type typeFit int

const (
	typeDiffers typeFit = iota
	typeWider           // every value fits, by its text; its binary form may be another
	typeSame            // the same type, or the same with a wider limit: text and binary form are the same
)

// fitTypes tells whether every value of the source type is the same value in the target type.
func fitTypes(source, target string) typeFit {
	source, target = unquoted(source), unquoted(target)
	if source == target {
		return typeSame
	}
	s, t := parseTypeText(source), parseTypeText(target)
	if s.array != t.array {
		return typeDiffers
	}
	if s.base == t.base {
		if wider(s.base, s.modifiers, t.modifiers) {
			return typeSame
		}
		return typeDiffers
	}
	if s.base == "character varying" && t.base == "text" {
		return typeSame
	}
	if s.base == "text" && t.base == "character varying" && t.modifiers == nil {
		return typeSame
	}
	if strings.HasPrefix(s.base, "interval ") && t.base == "interval" && t.modifiers == nil {
		return typeSame
	}
	integers := []string{"smallint", "integer", "bigint"}
	from, to := slices.Index(integers, s.base), slices.Index(integers, t.base)
	if from >= 0 && (to > from || t.base == "numeric" && t.modifiers == nil) {
		return typeWider
	}
	return typeDiffers
}

// wider tells whether a type's limits are at least as wide on the target.
func wider(base string, source, target []int) bool {
	if slices.Equal(source, target) {
		return true
	}
	switch base {
	case "character varying", "bit varying", "timestamp without time zone", "timestamp with time zone",
		"time without time zone", "time with time zone", "interval":
		return target == nil || source != nil && len(source) == len(target) && source[0] <= target[0]
	case "numeric":
		if target == nil {
			return true
		}
		// another scale would print, and round, the same value differently
		return len(source) == 2 && len(target) == 2 && source[1] == target[1] && source[0] <= target[0]
	}
	return false
}
