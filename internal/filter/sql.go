package filter

import (
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

var comparisons = map[operator]string{opEq: "=", opNe: "<>", opGt: ">", opGte: ">=", opLt: "<", opLte: "<=", opRegex: "~"}

// sql prints the term as an expression in parentheses. Operators and types are named with their schema, so that none of a user is
// taken for them.
func (t *term) sql() string {
	switch t.operator {
	case opAnd, opOr:
		parts := make([]string, len(t.terms))
		for i, of := range t.terms {
			parts[i] = of.sql()
		}
		if t.operator == opAnd {
			return "(" + strings.Join(parts, " AND ") + ")"
		}
		return "(" + strings.Join(parts, " OR ") + ")"
	case opNot:
		return "(NOT " + t.terms[0].sql() + ")"
	case opKeys:
		return t.keysSQL()
	case opExists:
		// IS NOT NULL would be false for a composite value with a NULL in it.
		if t.exists {
			return "(" + postgres.Ident(t.column.Name) + " IS DISTINCT FROM NULL)"
		}
		return "(" + postgres.Ident(t.column.Name) + " IS NOT DISTINCT FROM NULL)"
	case opRegex:
		return "(" + t.subject(false) + " OPERATOR(pg_catalog.~) " + typed(t.pattern, "text") + ")"
	}
	wide := slices.ContainsFunc(t.operands, func(s scalar) bool { return t.family == familyInteger && !s.number.whole() })
	constants := make([]string, len(t.operands))
	for i := range t.operands {
		constants[i] = t.constant(&t.operands[i], wide)
	}
	switch t.operator {
	case opIn, opNin:
		any := "(" + t.subject(wide) + " OPERATOR(pg_catalog.=) ANY (ARRAY[" + strings.Join(constants, ", ") + "]))"
		if t.operator == opNin {
			return "(NOT " + any + ")"
		}
		return any
	}
	return "(" + t.subject(wide) + " OPERATOR(pg_catalog." + comparisons[t.operator] + ") " + constants[0] + ")"
}

// subject prints the column so that it is compared as the family is. An integer is made wide to be compared with a constant that
// int8 does not hold; otherwise it is left as it is, for an index to be of use.
func (t *term) subject(wide bool) string {
	column := postgres.Ident(t.column.Name)
	switch t.family {
	case familyInteger:
		if t.column.TypeOID == oidOID {
			column += "::pg_catalog.int8"
		}
		if wide {
			column += "::pg_catalog.numeric"
		}
	case familyText, familyPadded:
		return column + `::pg_catalog.text COLLATE pg_catalog."C"`
	case familyOther:
		// A cast to text is not what PostgreSQL prints, for inet and xml and for domains over boolean. format prints the same, but
		// makes '' of NULL.
		return "(CASE WHEN " + column + " IS DISTINCT FROM NULL THEN pg_catalog.format('%s', " + column + `) END) COLLATE pg_catalog."C"`
	}
	return column
}

func (t *term) constant(s *scalar, wide bool) string {
	switch t.family {
	case familyBool:
		return typed(string(s.text), "bool")
	case familyInteger:
		if wide {
			return typed(s.number.String(), "numeric")
		}
		return typed(s.number.String(), "int8")
	case familyNumeric:
		return typed(s.number.String(), "numeric")
	case familyFloat4:
		return typed(s.number.String(), "float4")
	case familyFloat8:
		return typed(s.number.String(), "float8")
	case familyUUID:
		return typed(string(s.text), "uuid")
	case familyDate:
		return typed(s.moment.format(t.family.momentForm(false)), "date")
	case familyTimestamp:
		return typed(s.moment.format(t.family.momentForm(false)), "timestamp")
	case familyTimestampTZ:
		return typed(s.moment.format(t.family.momentForm(false)), "timestamptz")
	}
	return typed(string(s.text), "text")
}

func typed(text, typ string) string {
	return strings.TrimPrefix(postgres.Literal(text), " ") + "::pg_catalog." + typ
}
