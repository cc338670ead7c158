// Package cel reads row filters written in the Common Expression Language, such as org == params.org && amount >= 10. An expression becomes
// a selector of package filter and nothing else, so it means the same in Go and in SQL, and its types are checked against the table's
// columns as a selector's are. What a selector cannot say (arithmetic, functions, comparisons of columns with one another) is refused. A
// comparison with NULL is unknown, as in SQL, where CEL itself has errors. The package does no I/O.
package cel

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/parser"

	"github.com/seed0419d559/syncline/internal/filter"
)

// Bounds of an expression.
const (
	maxBytes = 64 << 10
	maxDepth = 100
)

// Names that are no columns by themselves.
const (
	rowName    = "row"    // row["odd name"] is a column
	paramsName = "params" // params.org is a parameter
)

// Parse reads an expression. Errors are filter.ErrSelector.
func Parse(text string) (*filter.Selector, error) {
	if len(text) > maxBytes || !utf8.ValidString(text) {
		return nil, refuse("an expression is text in UTF-8 of at most %d bytes", maxBytes)
	}
	p, err := parser.NewParser(parser.Macros(), parser.MaxRecursionDepth(maxDepth), parser.ExpressionSizeCodePointLimit(maxBytes))
	if err != nil {
		return nil, fmt.Errorf("make the parser of expressions: %w", err)
	}
	source := common.NewTextSource(text)
	tree, problems := p.Parse(source)
	if list := problems.GetErrors(); len(list) > 0 {
		at := list[0].Location
		return nil, refuse("line %d, column %d: %s", at.Line(), at.Column()+1, list[0].Message)
	}
	t := translation{text: []rune(text), info: tree.SourceInfo()}
	selector, err := t.condition(tree.Expr())
	if err != nil {
		return nil, err
	}
	written, err := json.Marshal(selector)
	if err != nil {
		return nil, fmt.Errorf("write the selector of an expression: %w", err)
	}
	return filter.Parse(written) //nolint:wrapcheck // it names the column
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", filter.ErrSelector, fmt.Sprintf(format, args...))
}

// selector is an object of a selector in JSON.
type selector map[string]any

type translation struct {
	text []rune
	info *ast.SourceInfo
}

// refuse names the place in the expression.
func (t *translation) refuse(at ast.Expr, format string, args ...any) error {
	return refuse("%s: %s", t.shown(at), fmt.Sprintf(format, args...))
}

// shown is the text of an expression from where the parser says that it is, up to a few words.
func (t *translation) shown(at ast.Expr) string {
	const most = 40
	start := 0
	if r, found := t.info.GetOffsetRange(at.ID()); found {
		start = min(max(int(r.Start), 0), len(t.text))
	}
	rest := t.text[start:]
	if len(rest) > most {
		return fmt.Sprintf("at character %d, %q…", start+1, string(rest[:most]))
	}
	return fmt.Sprintf("at character %d, %q", start+1, string(rest))
}

var comparisons = map[string]string{
	operators.Equals: "$eq", operators.NotEquals: "$ne", operators.Less: "$lt", operators.LessEquals: "$lte",
	operators.Greater: "$gt", operators.GreaterEquals: "$gte",
}

var mirrored = map[string]string{"$eq": "$eq", "$ne": "$ne", "$lt": "$gt", "$lte": "$gte", "$gt": "$lt", "$gte": "$lte"}

// condition translates what is true or false.
func (t *translation) condition(e ast.Expr) (selector, error) {
	if column, ok := columnOf(e); ok {
		return selector{column: true}, nil // a boolean column by itself
	}
	if e.Kind() != ast.CallKind {
		return nil, t.refuse(e, "a condition is expected, such as org == \"acme\"")
	}
	call := e.AsCall()
	switch name := call.FunctionName(); name {
	case operators.LogicalAnd:
		return t.logic("$and", name, e)
	case operators.LogicalOr:
		return t.logic("$or", name, e)
	case operators.LogicalNot:
		of, err := t.condition(call.Args()[0])
		return selector{"$not": of}, err
	case operators.In:
		return t.in(e)
	case "startsWith", "endsWith", "contains", "matches":
		return t.pattern(e)
	default:
		if operator, ok := comparisons[name]; ok {
			return t.comparison(e, operator)
		}
		return nil, t.refuse(e, "%s is not among what can be told of a row here: there are ==, !=, <, <=, >, >=, in, &&, ||, !, and "+
			"startsWith, endsWith, contains and matches of a column", strings.Trim(name, "_@"))
	}
}

// logic makes one list of a chain, which would nest deeply otherwise.
func (t *translation) logic(operator, name string, e ast.Expr) (selector, error) {
	var list []selector
	var add func(ast.Expr) error
	add = func(e ast.Expr) error {
		if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == name {
			for _, of := range e.AsCall().Args() {
				if err := add(of); err != nil {
					return err
				}
			}
			return nil
		}
		of, err := t.condition(e)
		list = append(list, of)
		return err
	}
	err := add(e)
	return selector{operator: list}, err
}

func (t *translation) comparison(e ast.Expr, operator string) (selector, error) {
	args := e.AsCall().Args()
	column, ok := columnOf(args[0])
	other := args[1]
	if !ok {
		if column, ok = columnOf(args[1]); !ok {
			return nil, t.refuse(e, "one side of a comparison has to be a column")
		}
		other, operator = args[0], mirrored[operator]
	}
	if other.Kind() == ast.LiteralKind && other.AsLiteral() == types.NullValue {
		switch operator {
		case "$eq", "$ne":
			return selector{column: selector{"$exists": operator == "$ne"}}, nil
		}
		return nil, t.refuse(e, "nothing is greater or less than null")
	}
	value, err := t.value(other)
	return selector{column: selector{operator: value}}, err
}

func (t *translation) in(e ast.Expr) (selector, error) {
	args := e.AsCall().Args()
	column, ok := columnOf(args[0])
	if !ok || args[1].Kind() != ast.ListKind || args[1].AsList().Size() == 0 {
		return nil, t.refuse(e, `in stands between a column and a list of constants that is not empty, as in org in ["a", "b"]`)
	}
	var list []any
	for _, item := range args[1].AsList().Elements() {
		value, err := t.value(item)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return selector{column: selector{"$in": list}}, nil
}

func (t *translation) pattern(e ast.Expr) (selector, error) {
	call := e.AsCall()
	name := call.FunctionName()
	if !call.IsMemberFunction() || len(call.Args()) != 1 {
		return nil, t.refuse(e, `%s is written org.%s("text")`, name, name)
	}
	column, ok := columnOf(call.Target())
	if !ok {
		return nil, t.refuse(e, "%s is asked of a column", name)
	}
	value, err := t.value(call.Args()[0])
	if err != nil {
		return nil, err
	}
	text, constant := value.(string)
	switch {
	case name == "matches" && constant:
		return selector{column: selector{"$regex": text}}, nil
	case name == "matches":
		return selector{column: selector{"$regex": value}}, nil
	case !constant:
		return nil, t.refuse(e, "%s takes a constant text", name)
	}
	text = regexp.QuoteMeta(text)
	switch name {
	case "startsWith":
		text = "^" + text
	case "endsWith":
		text += "$"
	}
	return selector{column: selector{"$regex": text}}, nil
}

// columnOf is the column that an expression names: by itself, or for names that the language does not take as row["name"].
func columnOf(e ast.Expr) (string, bool) {
	if e.Kind() == ast.IdentKind && e.AsIdent() != rowName && e.AsIdent() != paramsName {
		return e.AsIdent(), true
	}
	return member(e, rowName)
}

// member is what an expression takes of a variable, as of.name or of["name"].
func member(e ast.Expr, of string) (string, bool) {
	isOf := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == of }
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return s.FieldName(), isOf(s.Operand()) && !s.IsTestOnly()
	case ast.CallKind:
		args := e.AsCall().Args()
		if e.AsCall().FunctionName() != operators.Index || !isOf(args[0]) || args[1].Kind() != ast.LiteralKind {
			return "", false
		}
		name, ok := args[1].AsLiteral().(types.String)
		return string(name), ok
	}
	return "", false
}

// value translates a constant or a parameter.
func (t *translation) value(e ast.Expr) (any, error) {
	if name, ok := member(e, paramsName); ok {
		return selector{"$param": name}, nil
	}
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "timestamp" && len(e.AsCall().Args()) == 1 && !e.AsCall().IsMemberFunction() {
		return t.value(e.AsCall().Args()[0])
	}
	if e.Kind() != ast.LiteralKind {
		return nil, t.refuse(e, "a constant is expected, or a parameter such as params.org")
	}
	switch v := e.AsLiteral().(type) {
	case types.String:
		return string(v), nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return json.Number(strconv.FormatInt(int64(v), 10)), nil
	case types.Uint:
		return json.Number(strconv.FormatUint(uint64(v), 10)), nil
	case types.Double:
		return t.number(e, float64(v)), nil
	}
	return nil, t.refuse(e, "a constant is a text, a number, true or false")
}

var writtenNumber = regexp.MustCompile(`^-?[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?`)

// number is a number with a point as it is written: with all its digits, which float64 does not hold.
func (t *translation) number(e ast.Expr, value float64) json.Number {
	if r, found := t.info.GetOffsetRange(e.ID()); found && int(r.Start) < len(t.text) {
		written := writtenNumber.FindString(string(t.text[r.Start:]))
		if read, err := strconv.ParseFloat(written, 64); err == nil && read == value {
			sign, digits := "", written
			if strings.HasPrefix(digits, "-") {
				sign, digits = "-", digits[1:]
			}
			if strings.HasPrefix(digits, ".") {
				digits = "0" + digits
			}
			return json.Number(sign + digits)
		}
	}
	return json.Number(strconv.FormatFloat(value, 'g', -1, 64))
}
