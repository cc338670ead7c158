package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed0419d559/syncline/internal/fault"
)

// variablePrefix begins the name of every variable that stands for a flag.
const variablePrefix = "SYNCLINE_"

// variableName is the variable of a flag: SYNCLINE_MAX_ROW_BYTES for max-row-bytes.
func variableName(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// hasVariable tells whether a flag can be set by a variable. Two ask for a text and no work: a variable for one of them, such
// as the SYNCLINE_VERSION of an image, must not do that to every command.
// Nor has a flag that changes something only where it is given: a variable that was set for another command would do it by accident.
func hasVariable(flag *pflag.Flag) bool {
	return flag.Name != "help" && flag.Name != "version" && flag.Annotations[commandLineOnly] == nil
}

const commandLineOnly = "syncline command line only"

// withoutVariable marks a flag that is given on the command line only.
func withoutVariable(flag *pflag.Flag) {
	flag.Annotations = map[string][]string{commandLineOnly: {}}
}

// bindVariables gives each flag that is not set on the command line the value of its variable. A value that the flag does
// not take is a wrong use that names the variable.
func bindVariables(flags *pflag.FlagSet, environment []string) error {
	values := variablesOf(environment)
	var failed error
	flags.VisitAll(func(flag *pflag.Flag) {
		value, ok := values[variableName(flag.Name)]
		if !ok || flag.Changed || failed != nil || !hasVariable(flag) {
			return
		}
		if err := flags.Set(flag.Name, value); err != nil {
			failed = usageError{fmt.Errorf("variable %s: %w", variableName(flag.Name), err)}
		}
	})
	return failed
}

func variablesOf(environment []string) map[string]string {
	values := make(map[string]string)
	for _, entry := range environment {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, variablePrefix) {
			values[name] = value
		}
	}
	return values
}

// Variables with the prefix that stand for no flag: those read elsewhere, those of tests, and those that cobra and Kubernetes
// (for a service named syncline) make by themselves.
var (
	otherVariables   = []string{"SYNCLINE_PG_BIN", fault.Variable, fault.LogVariable}
	foreignVariables = regexp.MustCompile(`^SYNCLINE_(TEST_.*|SEED|ACTIVE_HELP|COMPLETION_.*|(.*_)?SERVICE_(HOST|PORT)(_.*)?|(.*_)?PORT(_\d+_(TCP|UDP).*)?)$`)
)

// unknownVariables returns the names, sorted, that stand for a flag of no command. They are likely misspelt, and would
// otherwise be ignored in silence.
func unknownVariables(root *cobra.Command, environment []string) []string {
	known := make(map[string]bool)
	for _, name := range otherVariables {
		known[name] = true
	}
	addFlags(root, known)
	var unknown []string
	for name := range variablesOf(environment) {
		if !known[name] && !foreignVariables.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

func addFlags(cmd *cobra.Command, known map[string]bool) {
	cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if hasVariable(flag) {
			known[variableName(flag.Name)] = true
		}
	})
	for _, child := range cmd.Commands() {
		addFlags(child, known)
	}
}
