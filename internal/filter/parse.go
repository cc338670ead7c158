package filter

import (
	"maps"
	"regexp/syntax"
	"slices"
	"strings"
)

// operators of conditions and of logic, as they are written.
type operator string

const (
	opEq     operator = "$eq"
	opNe     operator = "$ne"
	opGt     operator = "$gt"
	opGte    operator = "$gte"
	opLt     operator = "$lt"
	opLte    operator = "$lte"
	opIn     operator = "$in"
	opNin    operator = "$nin"
	opExists operator = "$exists"
	opRegex  operator = "$regex"

	opAnd operator = "$and"
	opOr  operator = "$or"
	opNor operator = "$nor"
	opNot operator = "$not"

	param = "$param"
)

const (
	columnOperators   = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $regex and $not"
	selectorOperators = "$and, $or, $nor and $not"
)

// Selector is a selector that is well-formed. It knows no table: the same one may be compiled for several. It does not change,
// and may be used by several goroutines.
type Selector struct {
	root *node
}

// node is a condition on a column (operator and operands), or logic on nodes: $and, $or, and $not with one node.
type node struct {
	operator operator
	path     string // where it was written
	nodes    []*node
	column   string
	operands []operand
	depth    int    // levels of operators, its own included
	text     string // its canonical JSON
}

// operand is a constant or a parameter.
type operand struct {
	path  string
	kind  jsonKind // of a constant: string, number or boolean
	text  string   // of a constant; a number in its canonical form
	param string   // or the parameter's name; a name is never empty
}

// Parse reads a selector. It knows neither tables nor parameters: Compile and Check refuse what does not fit those. Errors are
// ErrSelector.
func Parse(selector []byte) (*Selector, error) {
	v, err := readJSON(selector)
	if err != nil {
		return nil, err
	}
	root, err := parseSelector(v, "", 1)
	if err != nil {
		return nil, err
	}
	if root.depth > maxNesting {
		return nil, refuse("", "it is nested deeper than %d levels of operators", maxNesting)
	}
	if len(root.text) > maxBytes {
		return nil, refuse("", "its canonical form has %d bytes; at most %d are read", len(root.text), maxBytes)
	}
	return &Selector{root}, nil
}

// parseSelector reads an object of conditions, all of which have to hold.
func parseSelector(v jsonValue, path string, depth int) (*node, error) {
	if v.kind != jsonObject {
		return nil, refuse(path, `a selector is an object such as {"org": "acme"}; got %s`, v.shown())
	}
	if depth > maxNesting {
		return nil, refuse(path, "it is nested deeper than %d levels of operators", maxNesting)
	}
	if len(v.members) == 0 {
		return nil, refuse(path, "it is empty, and would select every row; name a condition, or leave the selector out")
	}
	nodes := make([]*node, len(v.members))
	for i, m := range v.members {
		var err error
		at := join(path, m.name)
		if strings.HasPrefix(m.name, "$") {
			nodes[i], err = parseLogic(operator(m.name), m.value, at, depth)
		} else {
			nodes[i], err = parseColumn(m.name, m.value, at, depth)
		}
		if err != nil {
			return nil, err
		}
	}
	return newLogic(opAnd, path, nodes), nil
}

func parseLogic(op operator, v jsonValue, path string, depth int) (*node, error) {
	switch op {
	case opNot:
		n, err := parseSelector(v, path, depth+1)
		if err != nil {
			return nil, err
		}
		return newNot(path, n), nil
	case opAnd, opOr, opNor:
	case opEq, opNe, opGt, opGte, opLt, opLte, opIn, opNin, opExists, opRegex:
		return nil, refuse(path, `%s needs a column: write {"COLUMN": {"%s": …}}`, op, op)
	case param:
		return nil, refuse(path, "a parameter stands for a constant, not for a condition")
	default:
		return nil, refuse(path, "unknown operator; there are %s here, and names of columns", selectorOperators)
	}
	if v.kind != jsonArray || len(v.items) == 0 {
		return nil, refuse(path, "%s takes a list of selectors that is not empty; got %s", op, v.shownList())
	}
	nodes := make([]*node, len(v.items))
	for i, item := range v.items {
		var err error
		if nodes[i], err = parseSelector(item, element(path, i), depth+1); err != nil {
			return nil, err
		}
	}
	if op == opNor {
		return newNot(path, newLogic(opOr, path, nodes)), nil
	}
	return newLogic(op, path, nodes), nil
}

// parseColumn reads what stands at a column: a constant, a parameter, or an object of operators.
func parseColumn(column string, v jsonValue, path string, depth int) (*node, error) {
	if v.kind != jsonObject || len(v.members) == 1 && v.members[0].name == param {
		o, err := parseOperand(v, path)
		if err != nil {
			return nil, err
		}
		return newCondition(column, opEq, path, []operand{o}), nil
	}
	if depth > maxNesting {
		return nil, refuse(path, "it is nested deeper than %d levels of operators", maxNesting)
	}
	if len(v.members) == 0 {
		return nil, refuse(path, `it is empty; name a condition, such as {"$exists": true}`)
	}
	nodes := make([]*node, len(v.members))
	for i, m := range v.members {
		var err error
		if nodes[i], err = parseCondition(column, operator(m.name), m.value, join(path, m.name), depth); err != nil {
			return nil, err
		}
	}
	return newLogic(opAnd, path, nodes), nil
}

func parseCondition(column string, op operator, v jsonValue, path string, depth int) (*node, error) {
	var operands []operand
	switch op {
	case opNot:
		if v.kind != jsonObject || len(v.members) == 1 && v.members[0].name == param {
			return nil, refuse(path, `$not takes an object of operators, such as {"$gte": 18}; got %s; for one constant there is $ne`, v.shown())
		}
		n, err := parseColumn(column, v, path, depth+1)
		if err != nil {
			return nil, err
		}
		return newNot(path, n), nil
	case opIn, opNin:
		if v.kind != jsonArray || len(v.items) == 0 {
			return nil, refuse(path, "%s takes a list of constants that is not empty; got %s", op, v.shownList())
		}
		for i, item := range v.items {
			o, err := parseOperand(item, element(path, i))
			if err != nil {
				return nil, err
			}
			operands = append(operands, o)
		}
	case opExists:
		if v.kind != jsonBool {
			return nil, refuse(path, "$exists takes true or false; got %s", v.shown())
		}
		operands = []operand{{path: path, kind: jsonBool, text: v.text}}
	case opEq, opNe, opGt, opGte, opLt, opLte, opRegex:
		o, err := parseOperand(v, path)
		if err != nil {
			return nil, err
		}
		operands = []operand{o}
		if op == opRegex && o.param == "" {
			if o.kind != jsonString {
				return nil, refuse(path, "$regex takes a string; got %s", v.shown())
			}
			if _, err := readPattern(o.text); err != nil {
				return nil, refuse(path, "%s", err)
			}
		}
	case opAnd, opOr, opNor:
		return nil, refuse(path, `%s stands outside of a column: write {"%s": [{"%s": …}, …]}`, op, op, column)
	default:
		if !strings.HasPrefix(string(op), "$") {
			return nil, refuse(path, "operators begin with $; inside of a value of a json column nothing can be selected")
		}
		return nil, refuse(path, "unknown operator; there are %s", columnOperators)
	}
	return newCondition(column, op, path, operands), nil
}

// parseOperand reads a constant or a parameter.
func parseOperand(v jsonValue, path string) (operand, error) {
	o := operand{path: path, kind: v.kind, text: v.text}
	switch v.kind {
	case jsonString, jsonBool:
		return o, nil
	case jsonNumber:
		d, err := readNumber([]byte(v.text))
		if err != nil {
			return o, refuse(path, "%s", err)
		}
		o.text = d.String()
		return o, nil
	case jsonNull:
		return o, refuse(path, `nothing is equal to null; write {"$exists": false} for rows where the column is NULL`)
	case jsonObject:
		if len(v.members) == 1 && v.members[0].name == param {
			name := v.members[0].value
			if name.kind != jsonString || name.text == "" {
				return o, refuse(join(path, param), "a parameter has a name, which is a string; got %s", name.shown())
			}
			return operand{path: path, param: name.text}, nil
		}
	}
	return o, refuse(path, `a constant is a string, a number, true or false, and a parameter is {"$param": "NAME"}; got %s`, v.shown())
}

// shownList is shown, and says of a list that it is empty.
func (v jsonValue) shownList() string {
	if v.kind == jsonArray && len(v.items) == 0 {
		return "an empty list"
	}
	return v.shown()
}

// Columns returns the names of the columns that the selector looks at, sorted.
func (s *Selector) Columns() []string {
	names := map[string]bool{}
	s.root.each(func(n *node) { names[n.column] = true })
	return slices.Sorted(maps.Keys(names))
}

// Parameters returns the names of the selector's parameters, sorted.
func (s *Selector) Parameters() []string {
	names := map[string]bool{}
	s.root.each(func(n *node) {
		for _, o := range n.operands {
			if o.param != "" {
				names[o.param] = true
			}
		}
	})
	return slices.Sorted(maps.Keys(names))
}

// each visits the conditions.
func (n *node) each(visit func(*node)) {
	if n.nodes == nil {
		visit(n)
	}
	for _, of := range n.nodes {
		of.each(visit)
	}
}

// readPattern parses a regular expression and refuses what PostgreSQL cannot be told.
func readPattern(pattern string) (*syntax.Regexp, error) {
	re, err := parsePattern(pattern)
	if err != nil {
		return nil, err
	}
	if _, err := printPattern(re); err != nil {
		return nil, err
	}
	return re, nil
}
