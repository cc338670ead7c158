package filter

import (
	"fmt"
	"unicode/utf8"
)

// Value is a value of a row, as PostgreSQL prints it with postgres.SessionSettings.
type Value struct {
	Null bool
	Text []byte
}

// truth is a value of SQL's logic: $and is the least of its parts, $or the greatest.
type truth int8

const (
	isFalse truth = iota
	isUnknown
	isTrue
)

func truthOf(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

// Matches tells whether the row is selected. values[i] is that of columns[i] of Compile; only those of Columns are looked at. It
// allocates nothing, and several goroutines may call it. An error is ErrValue: whether the row is selected is not known then.
func (p *Predicate) Matches(values []Value) (bool, error) {
	t, err := p.root.evaluate(values)
	return t == isTrue, err
}

func (t *term) evaluate(values []Value) (truth, error) {
	switch t.operator {
	case opAnd, opOr:
		result, decided := isTrue, isFalse
		if t.operator == opOr {
			result, decided = isFalse, isTrue
		}
		for _, of := range t.terms {
			one, err := of.evaluate(values)
			if err != nil {
				return isFalse, err
			}
			if one == decided {
				return decided, nil
			}
			if one == isUnknown {
				result = isUnknown
			}
		}
		return result, nil
	case opNot:
		of, err := t.terms[0].evaluate(values)
		return isTrue - of, err
	case opKeys:
		return t.hasKey(values)
	}
	return t.condition(values)
}

func (t *term) condition(values []Value) (truth, error) {
	if t.index >= len(values) {
		return isFalse, fmt.Errorf("%w: it has %d values, and none for column %q, which is number %d", ErrValue, len(values), t.column.Name, t.index+1)
	}
	value := values[t.index]
	if t.operator == opExists {
		return truthOf(value.Null != t.exists), nil
	}
	if value.Null {
		return isUnknown, nil
	}
	s, ok := t.family.read(value.Text)
	if !ok {
		return isFalse, t.unreadable(value.Text)
	}
	switch t.operator {
	case opRegex:
		if !utf8.Valid(s.text) {
			return isFalse, t.unreadable(value.Text)
		}
		return truthOf(t.regex.Match(s.text)), nil
	case opIn:
		return truthOf(t.contains(&s)), nil
	case opNin:
		return truthOf(!t.contains(&s)), nil
	}
	c := t.family.compare(&s, &t.operands[0])
	switch t.operator {
	case opEq:
		return truthOf(c == 0), nil
	case opNe:
		return truthOf(c != 0), nil
	case opGt:
		return truthOf(c > 0), nil
	case opGte:
		return truthOf(c >= 0), nil
	case opLt:
		return truthOf(c < 0), nil
	}
	return truthOf(c <= 0), nil // opLte
}

// contains searches the operands, which are sorted.
func (t *term) contains(s *scalar) bool {
	low, high := 0, len(t.operands)
	for low < high {
		middle := (low + high) / 2
		switch c := t.family.compare(s, &t.operands[middle]); {
		case c == 0:
			return true
		case c < 0:
			high = middle
		default:
			low = middle + 1
		}
	}
	return false
}

func (t *term) unreadable(text []byte) error {
	return fmt.Errorf("%w: the value of column %q %s, and reads %s", ErrValue, t.column.Name, t.column.is(), shown(string(text[:min(len(text), 1000)])))
}
