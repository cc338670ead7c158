package main

import (
	"fmt"
	"strings"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/schema"
)

// renameList is the value of a flag that gives tables other names: public.*=acme.*. It may be repeated, and one value may hold
// several with commas between them.
type renameList struct {
	rules *[]*applierv1.TableRename
}

// Set implements pflag.Value. It adds to what is there.
func (l renameList) Set(text string) error {
	var rules []string
	_ = patternList{&rules}.Set(text)
	for _, rule := range rules {
		source, target, ok := cutOutside(rule)
		if !ok {
			return fmt.Errorf("%q is no rule such as public.*=acme.*", rule)
		}
		if _, err := schema.ParseRename(source, target); err != nil {
			return err //nolint:wrapcheck // it names what is wrong
		}
		*l.rules = append(*l.rules, &applierv1.TableRename{Source: source, Target: target})
	}
	return nil
}

// cutOutside cuts at the = that is not within quotes.
func cutOutside(rule string) (source, target string, ok bool) {
	quoted := false
	for i := range len(rule) {
		switch {
		case rule[i] == '"':
			quoted = !quoted
		case rule[i] == '=' && !quoted:
			return rule[:i], rule[i+1:], true
		}
	}
	return rule, "", false
}

// String implements pflag.Value.
func (l renameList) String() string {
	if l.rules == nil {
		return ""
	}
	texts := make([]string, len(*l.rules))
	for i, r := range *l.rules {
		texts[i] = r.GetSource() + "=" + r.GetTarget()
	}
	return strings.Join(texts, ",")
}

// Type implements pflag.Value: the word that stands for the value in a help text.
func (l renameList) Type() string { return "source=target" }

// routed is a table of the source and where its rows go.
type routed interface {
	GetSchema() string
	GetName() string
	GetTargetSchema() string
	GetTargetName() string
}

// bothNames names a table on either side, where it is called otherwise here.
func bothNames(t routed) string {
	name := tableText(t.GetSchema(), t.GetName())
	if t.GetTargetName() == "" || t.GetTargetSchema() == t.GetSchema() && t.GetTargetName() == t.GetName() {
		return name
	}
	return name + " → " + tableText(t.GetTargetSchema(), t.GetTargetName())
}
