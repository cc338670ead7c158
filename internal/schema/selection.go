package schema

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrPattern says that a text is not a table pattern.
var ErrPattern = errors.New("invalid table pattern")

// Pattern selects tables by name: schema.table, with * for any run of characters outside of quotes. Unquoted parts are
// folded to lower case as PostgreSQL does; "Quoted" parts stand as they are, and a quoted * is an ordinary character.
type Pattern struct {
	schema, name part
}

// part holds the literal runs between the stars: one run and no star is an exact name.
type part []string

// maxPatternBytes is more than two names of 63 bytes have with their quotes, and a few stars.
const maxPatternBytes = 512

// ParsePattern reads schema.table, schema.* or *.*, and returns ErrPattern for anything else.
func ParsePattern(text string) (Pattern, error) {
	if len(text) > maxPatternBytes {
		return Pattern{}, fmt.Errorf("%w %.60q…: it has more than %d bytes", ErrPattern, text, maxPatternBytes)
	}
	if strings.Contains(text, "\x00") || !utf8.ValidString(text) {
		return Pattern{}, fmt.Errorf("%w %q: names are UTF-8 without NUL", ErrPattern, text)
	}
	parts := make([]part, 0, 2)
	rest := text
	for {
		p, tail, err := parsePart(rest)
		if err != nil {
			return Pattern{}, fmt.Errorf("%w %q: %w", ErrPattern, text, err)
		}
		parts = append(parts, p)
		if tail == "" {
			break
		}
		rest = tail[1:]
	}
	switch len(parts) {
	case 2:
		p := Pattern{schema: parts[0], name: parts[1]}
		if len(p.String()) > maxPatternBytes { // it is read back elsewhere
			return Pattern{}, fmt.Errorf("%w %.60q…: with its quotes it has more than %d bytes", ErrPattern, text, maxPatternBytes)
		}
		return p, nil
	case 1:
		return Pattern{}, fmt.Errorf("%w %q: name the schema too, as in public.%s", ErrPattern, text, text)
	default:
		return Pattern{}, fmt.Errorf("%w %q: expected schema.table, and quotes around a name that holds a dot", ErrPattern, text)
	}
}

// parsePart reads up to the next dot outside of quotes; the tail begins with that dot.
func parsePart(text string) (part, string, error) {
	runs := part{""}
	i, quoted := 0, false
	for ; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '"' && i+1 < len(text) && text[i+1] == '"':
			runs[len(runs)-1] += `"`
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
			runs[len(runs)-1] += text[i : i+1]
		case c == '.':
			if len(runs) == 1 && runs[0] == "" {
				return nil, "", errors.New("a name is empty")
			}
			return runs, text[i:], nil
		case c == '*':
			runs = append(runs, "")
		case c == ' ' || c == ',' || c == ';' || c == '\'' || c < ' ':
			return nil, "", fmt.Errorf("%q needs quotes", string(c))
		case 'A' <= c && c <= 'Z':
			runs[len(runs)-1] += string(c + ('a' - 'A'))
		default:
			runs[len(runs)-1] += text[i : i+1]
		}
	}
	if quoted {
		return nil, "", errors.New("a quote is not closed")
	}
	if len(runs) == 1 && runs[0] == "" {
		return nil, "", errors.New("a name is empty")
	}
	return runs, "", nil
}

func (p part) matches(name string) bool {
	if len(p) == 1 {
		return name == p[0]
	}
	name, found := strings.CutPrefix(name, p[0])
	if !found {
		return false
	}
	last := len(p) - 1
	for _, run := range p[1:last] {
		at := strings.Index(name, run)
		if at < 0 {
			return false
		}
		name = name[at+len(run):]
	}
	return strings.HasSuffix(name, p[last])
}

func (p part) String() string {
	quoted := make([]string, len(p))
	for i, run := range p {
		if run != "" {
			quoted[i] = display(run)
		}
	}
	return strings.Join(quoted, "*")
}

// Matches tells whether the pattern selects the name.
func (p Pattern) Matches(n Name) bool { return p.schema.matches(n.Schema) && p.name.matches(n.Name) }

// Exact returns the one name that the pattern can match, if it has no star.
func (p Pattern) Exact() (Name, bool) {
	if len(p.schema) != 1 || len(p.name) != 1 {
		return Name{}, false
	}
	return Name{p.schema[0], p.name[0]}, true
}

// String is the pattern in a form that ParsePattern reads back.
func (p Pattern) String() string { return p.schema.String() + "." + p.name.String() }

// Selection says which tables are meant. Without any include it means every table; an exclude always wins. A pattern
// that matches a partitioned table stands for all its partitions too. System schemas and Syncline's own are never selected.
type Selection struct {
	Include []Pattern
	Exclude []Pattern
}

// ParseSelection reads the patterns of a selection.
func ParseSelection(include, exclude []string) (Selection, error) {
	var s Selection
	for _, list := range []struct {
		from []string
		to   *[]Pattern
	}{{include, &s.Include}, {exclude, &s.Exclude}} {
		for _, text := range list.from {
			p, err := ParsePattern(text)
			if err != nil {
				return Selection{}, err
			}
			*list.to = append(*list.to, p)
		}
	}
	return s, nil
}

// All tells whether the selection means every table.
func (s Selection) All() bool { return len(s.Include) == 0 && len(s.Exclude) == 0 }

// Matches tells whether a table is selected, given its own name and those of the partitioned tables above it.
func (s Selection) Matches(name Name, above ...Name) bool {
	family := append([]Name{name}, above...)
	included := len(s.Include) == 0
	for _, n := range family {
		if anyMatches(s.Exclude, n) || IsSystemSchema(n.Schema) {
			return false
		}
		included = included || anyMatches(s.Include, n)
	}
	return included
}

func anyMatches(patterns []Pattern, n Name) bool {
	for _, p := range patterns {
		if p.Matches(n) {
			return true
		}
	}
	return false
}

// IsSystemSchema tells whether a schema is PostgreSQL's or Syncline's own, and so never replicated.
func IsSystemSchema(schema string) bool {
	return strings.HasPrefix(schema, "pg_") || schema == "information_schema" || schema == "syncline"
}

// UnknownTablesError lists the included names that are no replicable table.
type UnknownTablesError struct {
	// Problems has one sentence per name.
	Problems []string
}

func (e *UnknownTablesError) Error() string {
	return "select tables: " + strings.Join(e.Problems, "; ")
}

// Check returns an *UnknownTablesError when an include of the selection matches nothing in the description, which was
// read with that same selection: for a misspelt name must not quietly mean nothing.
func (d Database) Check(s Selection) error {
	var problems []string
	for _, p := range s.Include {
		if reason := d.unmatched(p, s); reason != "" {
			problems = append(problems, reason)
		}
	}
	if problems == nil {
		return nil
	}
	return &UnknownTablesError{Problems: problems}
}

func (d Database) unmatched(p Pattern, s Selection) string {
	for _, t := range d.Tables {
		if p.Matches(t.FullName()) {
			return ""
		}
	}
	for _, q := range d.Sequences {
		if p.Matches(q.FullName()) {
			return ""
		}
	}
	name, exact := p.Exact()
	if !exact {
		return fmt.Sprintf("no table matches %s", p)
	}
	for _, skipped := range d.NotReplicated {
		if skipped.Relation == name {
			return fmt.Sprintf("%s %s cannot be replicated: %s", skipped.Kind, name, skipped.Reason)
		}
	}
	if IsSystemSchema(name.Schema) {
		return fmt.Sprintf("%s is in a schema that is never replicated", name)
	}
	if !s.Matches(name) {
		return fmt.Sprintf("%s is both included and excluded", name)
	}
	return fmt.Sprintf("table %s does not exist", name)
}
