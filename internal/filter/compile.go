package filter

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Column is a column of the table whose rows are selected.
type Column struct {
	Name    string
	TypeOID uint32 // of a domain, the domain's own: it is compared by its text
	Type    string // as PostgreSQL prints it, for messages; may be empty
}

// Predicate is a selector that fits a table, with the values of its parameters. It does not change, and may be used by several
// goroutines.
type Predicate struct {
	root    *term
	columns []int
	sql     string
}

// term is a node that fits the table.
type term struct {
	operator operator
	terms    []*term
	index    int // of the column
	column   Column
	family   family
	operands []scalar // sorted by the family's order
	exists   bool
	regex    *regexp.Regexp
	pattern  string     // the same for PostgreSQL
	keys     [][]scalar // of opKeys: values of the columns of its terms, sorted
}

// Compile fits the selector to a table and sets its parameters. Parameters that the selector does not name are ignored, one
// that is missing is an error. Errors are ErrSelector.
func (s *Selector) Compile(columns []Column, parameters map[string]string) (*Predicate, error) {
	c := newCompiler(columns)
	c.parameters = parameters
	root, err := c.compile(s.root)
	if err != nil {
		return nil, err
	}
	return &Predicate{root: root, columns: slices.Sorted(maps.Keys(c.used)), sql: root.sql()}, nil
}

// Check tells whether the selector fits a table, whatever the values of its parameters will be: each of them is read when it is
// known, by Compile. Errors are ErrSelector.
func (s *Selector) Check(columns []Column) error {
	c := newCompiler(columns)
	c.anyParameter = true
	_, err := c.compile(s.root)
	return err
}

// Columns returns the indexes of the columns that the predicate looks at, ascending.
func (p *Predicate) Columns() []int { return slices.Clone(p.columns) }

// SQL returns the predicate as an expression in parentheses, for a WHERE. It names the columns without their table, is safe under
// every search_path, and needs a session with postgres.SessionSettings.
func (p *Predicate) SQL() string { return p.sql }

type compiler struct {
	columns      []Column
	index        map[string]int
	parameters   map[string]string
	anyParameter bool
	used         map[int]bool
	printed      int // bytes of the regular expressions for PostgreSQL
}

func newCompiler(columns []Column) *compiler {
	c := &compiler{columns: columns, index: make(map[string]int, len(columns)), used: map[int]bool{}}
	for i, column := range columns {
		c.index[column.Name] = i
	}
	return c
}

func (c *compiler) compile(n *node) (*term, error) {
	if n.nodes == nil {
		return c.condition(n)
	}
	t := &term{operator: n.operator}
	for _, of := range n.nodes {
		compiled, err := c.compile(of)
		if err != nil {
			return nil, err
		}
		t.terms = append(t.terms, compiled)
	}
	return t, nil
}

func (c *compiler) condition(n *node) (*term, error) {
	index, found := c.index[n.column]
	if !found {
		return nil, refuse(n.path, "the table has no column %s; it has %s", shown(n.column), c.names())
	}
	c.used[index] = true
	t := &term{operator: n.operator, index: index, column: c.columns[index]}
	var err error
	if t.family, err = familyOf(t.column); err != nil {
		return nil, t.refuse(n.path, err)
	}
	switch n.operator {
	case opExists:
		t.exists = n.operands[0].text == "true"
		return t, nil
	case opRegex:
		if !t.family.texts() {
			return nil, t.refuse(n.path, fmt.Errorf("%s, which a regular expression does not match; compare with %s", t.column.is(), t.family.takes()))
		}
		return t, c.regex(t, n)
	case opGt, opGte, opLt, opLte:
		if !t.family.ordered() {
			return nil, t.refuse(n.path, fmt.Errorf("%s, which has no order here; there are $eq, $ne, $in, $nin, $exists and $regex", t.column.is()))
		}
	}
	for _, o := range n.operands {
		s, known, err := c.operand(t, o)
		if err != nil {
			return nil, err
		}
		if known {
			t.operands = append(t.operands, s)
		}
	}
	slices.SortFunc(t.operands, func(a, b scalar) int { return t.family.compare(&a, &b) })
	t.operands = slices.CompactFunc(t.operands, func(a, b scalar) bool { return t.family.compare(&a, &b) == 0 })
	return t, nil
}

// operand reads a constant, or a parameter when its value is known.
func (c *compiler) operand(t *term, o operand) (s scalar, known bool, err error) {
	if o.param == "" {
		if s, err = t.family.constant(o); err != nil {
			return s, false, t.refuse(o.path, fmt.Errorf("%s and %w", t.column.is(), err))
		}
		return s, true, nil
	}
	text, known, err := c.parameter(o)
	if err != nil || !known {
		return s, false, err
	}
	if s, err = t.family.operand(text); err != nil {
		return s, false, t.refuse(o.path, fmt.Errorf("%s and %w; that is the value of the parameter %s", t.column.is(), err, shown(o.param)))
	}
	return s, true, nil
}

// parameter looks up the value of a parameter; where any value will do, it is not known.
func (c *compiler) parameter(o operand) (text string, known bool, err error) {
	if c.anyParameter {
		return "", false, nil
	}
	text, known = c.parameters[o.param]
	if !known {
		return "", false, refuse(o.path, "the parameter %s has no value", shown(o.param))
	}
	return text, true, nil
}

func (c *compiler) regex(t *term, n *node) error {
	o := n.operands[0]
	text := o.text
	if o.param != "" {
		var known bool
		var err error
		if text, known, err = c.parameter(o); err != nil || !known {
			return err
		}
		if len(text) > maxBytes {
			return refuse(o.path, "the parameter %s has %d bytes; a regular expression has at most %d", shown(o.param), len(text), maxBytes)
		}
	}
	re, err := readPattern(text)
	if err != nil {
		return refuse(o.path, "%s", err)
	}
	if t.regex, err = regexp.Compile(text); err != nil {
		return refuse(o.path, "%s", err)
	}
	if t.pattern, err = printPattern(re); err != nil {
		return refuse(o.path, "%s", err)
	}
	if c.printed += len(t.pattern); c.printed > maxPrinted {
		return refuse(o.path, "%s", errTooManyClasses)
	}
	return nil
}

// refuse names the column.
func (t *term) refuse(path string, err error) error {
	return refuse(path, "column %s %s", shown(t.column.Name), err)
}

// is says of which type the column is.
func (c Column) is() string {
	if c.Type == "" {
		return "is " + c.typeName()
	}
	return "is of type " + c.Type
}

// names lists the columns for a message.
func (c *compiler) names() string {
	const most = 20
	names := make([]string, 0, most)
	for _, column := range c.columns[:min(len(c.columns), most)] {
		names = append(names, column.Name)
	}
	if len(c.columns) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
