package filter

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Bounds of a list of keys.
const (
	MaxKeys     = 10_000
	maxKeyBytes = 1 << 20
)

// opKeys is the operator of a term that looks for a row's key in a list. No selector can be written with it.
const opKeys operator = "keys"

// Keys selects the rows whose values in some columns are one of a list. It does not change.
type Keys struct {
	columns []string
	keys    [][]string
}

// NewKeys makes a list of keys, each with a value for each column. Errors are ErrSelector.
func NewKeys(columns []string, keys [][]string) (*Keys, error) {
	switch {
	case len(keys) == 0 || len(columns) == 0:
		return nil, refuse("", "a list of keys has columns and at least one key")
	case len(keys) > MaxKeys:
		return nil, refuse("", "there are %d keys; at most %d can be listed", len(keys), MaxKeys)
	}
	for i, column := range columns {
		if slices.Contains(columns[:i], column) {
			return nil, refuse("", "column %s is named twice", shown(column))
		}
	}
	bytes := 0
	for i, key := range keys {
		if len(key) != len(columns) {
			return nil, refuse(fmt.Sprintf("keys[%d]", i), "it has %d values, and there are %d columns (%s)", len(key), len(columns), strings.Join(columns, ", "))
		}
		for _, value := range key {
			bytes += len(value)
		}
	}
	if bytes > maxKeyBytes {
		return nil, refuse("", "the keys have %d bytes; at most %d are read", bytes, maxKeyBytes)
	}
	return &Keys{columns, keys}, nil
}

// Columns are the columns whose values are looked for.
func (k *Keys) Columns() []string { return k.columns }

// String is short, and the same for lists of the same keys only.
func (k *Keys) String() string {
	lines := make([]string, len(k.keys))
	for i, key := range k.keys {
		lines[i] = list(key, quoteJSON)
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	text, _ := json.Marshal(map[string]any{"$keys": k.columns, "count": len(lines), "sha256": hex.EncodeToString(sum[:])}) // texts and a number
	return string(text)
}

// Compile fits the keys to a table. Errors are ErrSelector.
func (k *Keys) Compile(columns []Column) (*Predicate, error) {
	c := newCompiler(columns)
	t := &term{operator: opKeys}
	for _, name := range k.columns {
		index, found := c.index[name]
		if !found {
			return nil, refuse("key_columns", "the table has no column %s; it has %s", shown(name), c.names())
		}
		part := &term{operator: opIn, index: index, column: columns[index]}
		var err error
		if part.family, err = familyOf(part.column); err != nil {
			return nil, part.refuse("key_columns", err)
		}
		c.used[index] = true
		t.terms = append(t.terms, part)
	}
	for i, key := range k.keys {
		read := make([]scalar, len(key))
		for n, part := range t.terms {
			var err error
			if read[n], err = part.family.operand(key[n]); err != nil {
				return nil, part.refuse(fmt.Sprintf("keys[%d]", i), fmt.Errorf("%s and %w", part.column.is(), err))
			}
		}
		t.keys = append(t.keys, read)
	}
	slices.SortFunc(t.keys, t.compareKeys)
	t.keys = slices.CompactFunc(t.keys, func(a, b []scalar) bool { return t.compareKeys(a, b) == 0 })
	if len(t.terms) == 1 {
		one := t.terms[0]
		for _, key := range t.keys {
			one.operands = append(one.operands, key[0])
		}
		t = one
	}
	return &Predicate{root: t, columns: slices.Sorted(maps.Keys(c.used)), sql: t.sql()}, nil
}

// Both selects the rows that both predicates do, of one table; either may be nil for all rows.
func Both(a, b *Predicate) *Predicate {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	columns := slices.Concat(a.columns, b.columns)
	slices.Sort(columns)
	t := &term{operator: opAnd, terms: []*term{a.root, b.root}}
	return &Predicate{root: t, columns: slices.Compact(columns), sql: t.sql()}
}

func (t *term) compareKeys(a, b []scalar) int {
	for i, part := range t.terms {
		if c := part.family.compare(&a[i], &b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// hasKey searches the keys, which are sorted: values are as equal as PostgreSQL finds them, however they are written.
func (t *term) hasKey(values []Value) (truth, error) {
	var room [4]scalar
	key := room[:0]
	unknown := false
	for _, part := range t.terms {
		if part.index >= len(values) {
			return isFalse, fmt.Errorf("%w: it has %d values, and none for column %q", ErrValue, len(values), part.column.Name)
		}
		value := values[part.index]
		if value.Null {
			unknown = true
			key = append(key, scalar{})
			continue
		}
		s, ok := part.family.read(value.Text)
		if !ok {
			return isFalse, part.unreadable(value.Text)
		}
		key = append(key, s)
	}
	if unknown {
		return t.hasKeyBeside(key, values), nil
	}
	_, found := slices.BinarySearchFunc(t.keys, key, t.compareKeys)
	return truthOf(found), nil
}

// hasKeyBeside tells what a row with NULLs in its key is: unknown where another key has its other values.
func (t *term) hasKeyBeside(key []scalar, values []Value) truth {
	for _, one := range t.keys {
		same := true
		for i, part := range t.terms {
			same = same && (values[part.index].Null || part.family.compare(&one[i], &key[i]) == 0)
		}
		if same {
			return isUnknown
		}
	}
	return isFalse
}

// keysSQL compares rows of values. The constants of a column are all of one type.
func (t *term) keysSQL() string {
	subjects, wide := make([]string, len(t.terms)), make([]bool, len(t.terms))
	for n, part := range t.terms {
		wide[n] = part.family == familyInteger && slices.ContainsFunc(t.keys, func(key []scalar) bool { return !key[n].number.whole() })
		subjects[n] = part.subject(wide[n])
	}
	rows := make([]string, len(t.keys))
	for i, key := range t.keys {
		values := make([]string, len(key))
		for n, part := range t.terms {
			values[n] = part.constant(&key[n], wide[n])
		}
		rows[i] = "(" + strings.Join(values, ", ") + ")"
	}
	return "(ROW(" + strings.Join(subjects, ", ") + ") OPERATOR(pg_catalog.=) ANY (VALUES " + strings.Join(rows, ", ") + "))"
}
