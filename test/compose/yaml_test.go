package compose

import (
	"fmt"
	"strings"
	"testing"
)

// readYAML reads the part of YAML that docker-compose.yml keeps to: mappings and lists by indentation, flow lists of
// scalars on one line, plain and double-quoted scalars without escapes, and comments on lines of their own. Mappings
// become map[string]any, lists []any, scalars strings. Whatever else there is, is an error.
func readYAML(text string) (any, error) {
	r := &yamlReader{}
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimLeft(line, " ")
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		if strings.ContainsAny(line, "\t\r") || strings.Contains(line, " #") {
			return nil, fmt.Errorf("line %d: tab, or comment beside a value", i+1)
		}
		r.lines = append(r.lines, yamlLine{number: i + 1, indent: len(line) - len(trimmed), text: strings.TrimRight(trimmed, " ")})
	}
	if len(r.lines) == 0 {
		return nil, fmt.Errorf("nothing in it")
	}
	value, err := r.block(r.lines[0].indent)
	if err == nil && len(r.lines) > 0 {
		err = fmt.Errorf("line %d: indented otherwise than the lines above", r.lines[0].number)
	}
	return value, err
}

type yamlLine struct {
	number, indent int
	text           string
}

type yamlReader struct{ lines []yamlLine }

func (r *yamlReader) block(indent int) (any, error) {
	if strings.HasPrefix(r.lines[0].text, "- ") {
		return r.list(indent)
	}
	return r.mapping(indent)
}

func (r *yamlReader) list(indent int) (any, error) {
	var list []any
	for len(r.lines) > 0 && r.lines[0].indent == indent {
		item, ok := strings.CutPrefix(r.lines[0].text, "- ")
		if !ok {
			return nil, fmt.Errorf("line %d: expected a list's item", r.lines[0].number)
		}
		value, err := scalar(item)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", r.lines[0].number, err)
		}
		list = append(list, value)
		r.lines = r.lines[1:]
	}
	return list, nil
}

func (r *yamlReader) mapping(indent int) (any, error) {
	mapping := map[string]any{}
	for len(r.lines) > 0 && r.lines[0].indent == indent {
		line := r.lines[0]
		r.lines = r.lines[1:]
		key, rest, ok := strings.Cut(line.text, ":")
		if _, again := mapping[key]; again || !ok || rest != "" && rest[0] != ' ' || strings.ContainsAny(key, `"'{}[]&*`) {
			return nil, fmt.Errorf("line %d: expected KEY: VALUE with a key that is new and plain", line.number)
		}
		var value any
		var err error
		switch rest = strings.TrimSpace(rest); {
		case rest != "":
			value, err = scalarOrList(rest)
			if err != nil {
				err = fmt.Errorf("line %d: %w", line.number, err)
			}
		case len(r.lines) > 0 && r.lines[0].indent > indent:
			value, err = r.block(r.lines[0].indent)
		}
		if err != nil {
			return nil, err
		}
		mapping[key] = value
	}
	return mapping, nil
}

func scalarOrList(text string) (any, error) {
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return scalar(text)
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok {
		return nil, fmt.Errorf("flow list does not end on its line")
	}
	var list []any
	for item := range strings.SplitSeq(inner, ",") {
		value, err := scalar(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

func scalar(text string) (string, error) {
	if inner, ok := strings.CutPrefix(text, `"`); ok {
		inner, ok = strings.CutSuffix(inner, `"`)
		if !ok || strings.ContainsAny(inner, `"\`) {
			return "", fmt.Errorf("scalar %s: quotes or escapes in it", text)
		}
		return inner, nil
	}
	if text == "" || strings.ContainsAny(text[:1], "'{}[]&*!|>%@`-") || strings.Contains(text, ": ") {
		return "", fmt.Errorf("scalar %q: of a form that is not known here", text)
	}
	return text, nil
}

func TestReadYAML(t *testing.T) {
	got, err := readYAML("# top\na: b\nc:\n  d: [\"e f\", g]\n  h:\n    - i:1\n    - \"j\"\n  k:\nl: \"\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := `map[a:b c:map[d:[e f g] h:[i:1 j] k:<nil>] l:]`; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for _, text := range []string{"", "a", "a: b\n  c: d", "a: b\na: c", "a: [b", "a: 'b'", "a: &x b", "a: b # c", "a:\tb", "a:\n  - - b", "a:\n  b: c\n d: e", "a: |\n  b"} {
		if got, err := readYAML(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
