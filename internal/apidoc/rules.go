package apidoc

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Rule is how a method is called over HTTP.
type Rule struct{ Verb, Path string }

// ReadRules reads the HTTP rules, by the full names of their methods. It knows the shape that proto/gateway.yaml has, and refuses any
// other line.
func ReadRules(path string) (map[string]Rule, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read HTTP rules: %w", err)
	}
	defer file.Close()
	rules := map[string]Rule{}
	selector := ""
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		key, value, found := strings.Cut(strings.TrimPrefix(line, "- "), ": ")
		rule := rules[selector]
		switch {
		case line == "", strings.HasPrefix(line, "#"), key == "type", key == "config_version", key == "body", line == "http:", line == "rules:":
			continue
		case found && key == "selector":
			selector = value
			continue
		case found && selector != "" && (key == "get" || key == "post" || key == "put" || key == "patch" || key == "delete"):
			rule.Verb, rule.Path = strings.ToUpper(key), value
		default:
			return nil, fmt.Errorf("read HTTP rules: %s: unexpected line %q", path, line)
		}
		rules[selector] = rule
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read HTTP rules: %w", err)
	}
	return rules, nil
}
