package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// variablePrefix begins the name of every variable that stands for a flag.
const variablePrefix = "SYNCLINE_"

// variableName is the variable of a flag: SYNCLINE_MAX_ROW_BYTES for max-row-bytes.
func variableName(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// bindVariables gives each flag that is not set on the command line the value of its variable. A value that the flag does
// not take is a wrong use that names the variable.
func bindVariables(flags *pflag.FlagSet, environment []string) error {
	values := make(map[string]string)
	for _, entry := range environment {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, variablePrefix) {
			values[name] = value
		}
	}
	var failed error
	flags.VisitAll(func(flag *pflag.Flag) {
		value, ok := values[variableName(flag.Name)]
		if !ok || flag.Changed || failed != nil {
			return
		}
		if err := flags.Set(flag.Name, value); err != nil {
			failed = usageError{fmt.Errorf("variable %s: %w", variableName(flag.Name), err)}
		}
	})
	return failed
}
