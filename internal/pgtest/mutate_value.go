package pgtest

import (
	"fmt"
	"strings"
)

// known tells whether value can make a value for a column.
func (m *mutator) known(c mutableColumn) bool {
	_, ok := samplesOf[c.typ]
	return ok
}

// value makes a value for a column as text, or nil for NULL.
func (m *mutator) value(c mutableColumn, key bool) any {
	if !key && m.chance(0.1) {
		return nil
	}
	if strings.HasPrefix(c.name, "big_") && m.chance(0.8) {
		return m.large(c)
	}
	switch c.typ {
	case "integer", "bigint", "smallint":
		if m.chance(0.97) {
			return fmt.Sprint(m.r.IntN(90)) // few enough that references and keys meet
		}
	case "text":
		switch {
		case c.name == "region":
			return []string{"north", "south", "east", "west"}[m.r.IntN(4)]
		case m.chance(0.5):
			return fmt.Sprintf("text %d", m.r.IntN(200))
		}
	case "uuid":
		if m.chance(0.7) {
			return fmt.Sprintf("%016x%016x", m.r.Uint64(), m.r.Uint64())
		}
	case "numeric", "double precision", "real":
		if m.chance(0.5) {
			return fmt.Sprintf("%.*f", m.r.IntN(5), m.r.Float64()*100)
		}
	case "date":
		if m.chance(0.5) {
			return fmt.Sprintf("2026-01-%02d", 1+m.r.IntN(28))
		}
	}
	return pick(m.r, samplesOf[c.typ])
}

// large makes a value that is stored out of line: compressible or not, from 3 KB to 300 KB.
func (m *mutator) large(c mutableColumn) string {
	size := 3000 << m.r.IntN(4)
	if m.chance(0.03) {
		size *= 10
	}
	var text strings.Builder
	if m.chance(0.5) {
		word := fmt.Sprintf("repeat %d ", m.r.IntN(1000))
		text.WriteString(strings.Repeat(word, size/len(word)))
	} else {
		for text.Len() < size {
			fmt.Fprintf(&text, "%016x", m.r.Uint64())
		}
	}
	switch c.typ {
	case "bytea":
		return fmt.Sprintf(`\x%x`, text.String()[:size/2])
	case "jsonb", "json":
		return fmt.Sprintf(`{"text": %q, "n": %d}`, text.String(), m.r.IntN(10))
	}
	return text.String()
}
