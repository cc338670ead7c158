package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed0419d559/syncline/internal/schema"
)

// patternList is the value of a flag that takes table patterns: it may be repeated, and one value may hold several with
// commas between them. A comma within quotes belongs to a name, which pflag's own slices do not know.
type patternList struct {
	patterns *[]string
}

// patternsFlag registers a flag for table patterns.
func patternsFlag(flags *pflag.FlagSet, to *[]string, name, usage string) {
	flags.Var(patternList{to}, name, usage)
}

// Set implements pflag.Value. It adds to what is there.
func (l patternList) Set(text string) error {
	quoted, from := false, 0
	for i := range len(text) {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == ',' && !quoted:
			l.add(text[from:i])
			from = i + 1
		}
	}
	l.add(text[from:])
	return nil
}

func (l patternList) add(pattern string) {
	if pattern = strings.TrimSpace(pattern); pattern != "" {
		*l.patterns = append(*l.patterns, pattern)
	}
}

// String implements pflag.Value.
func (l patternList) String() string {
	if l.patterns == nil {
		return ""
	}
	return strings.Join(*l.patterns, ",")
}

// Type implements pflag.Value: the word that stands for the value in a help text.
func (l patternList) Type() string { return "patterns" }

// checkPatterns makes a pattern that is none a wrong use of its flag.
func checkPatterns(flag string, patterns []string) error {
	for _, text := range patterns {
		if _, err := schema.ParsePattern(text); err != nil {
			return usageError{fmt.Errorf("%s: %w", flag, err)}
		}
	}
	return nil
}
