package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// errUsage means that the arguments cannot be used.
var errUsage = errors.New("wrong use")

type options struct {
	binary    string
	only      []string
	rounds    int
	scale     float64
	versions  []string
	native    []variant
	keepGoing bool
	json      string
	add       []string
	profile   string
	set       map[string]string
	list      bool
	noSync    bool // for tests: the servers do not wait for the disk
}

func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	var only, versions, native, add, set string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.binary, "binary", "bin/syncline", "the syncline program")
	flags.StringVar(&only, "only", "", "run only these, separated by commas: WORKLOAD or WORKLOAD/MODE; see --list")
	flags.IntVar(&o.rounds, "rounds", 3, "runs of each; medians are shown")
	flags.Float64Var(&o.scale, "scale", 1, "size of all workloads, more than 0 and at most 1")
	flags.StringVar(&versions, "versions", "15", "major versions of PostgreSQL, separated by commas; what is missing is installed")
	flags.StringVar(&native, "native", "default,tuned,memory", "options of the native subscription to try, separated by commas: "+
		"default, tuned, memory, all, or settings as in binary=on+streaming=off")
	flags.BoolVar(&o.keepGoing, "keep-going", false, "go on with the next run when one fails")
	flags.StringVar(&o.json, "json", "", "write everything that was measured to this file, after each run")
	flags.StringVar(&add, "add", "", "report what these files hold, too, separated by commas: earlier runs with --json")
	flags.StringVar(&o.profile, "profile", "", "write CPU and heap profiles of the Syncline processes into this directory")
	flags.StringVar(&set, "set", "", "settings of all servers besides those of the report, separated by commas, as in default_toast_compression=lz4")
	flags.BoolVar(&o.list, "list", false, "list the workloads and their modes")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	o.only, o.versions, o.add = split(only), split(versions), split(add)
	variants, err := parseVariants(split(native))
	if err != nil {
		return o, err
	}
	o.native = variants
	if o.set, err = parseSettings(split(set)); err != nil {
		return o, err
	}
	return o, o.check()
}

func parseSettings(list []string) (map[string]string, error) {
	parsed := map[string]string{}
	for _, setting := range list {
		name, value, ok := strings.Cut(setting, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: --set %q: use NAME=VALUE", errUsage, setting)
		}
		parsed[name] = value
	}
	return parsed, nil
}

func (o options) check() error {
	switch {
	case o.rounds < 0 || o.rounds == 0 && len(o.add) == 0:
		return fmt.Errorf("%w: --rounds %d: use 1 or more, or 0 with --add", errUsage, o.rounds)
	case o.scale <= 0 || o.scale > 1:
		return fmt.Errorf("%w: --scale %g: use more than 0 and at most 1", errUsage, o.scale)
	case len(o.versions) == 0:
		return fmt.Errorf("%w: --versions is empty", errUsage)
	}
	for _, version := range o.versions {
		if _, err := strconv.Atoi(version); err != nil {
			return fmt.Errorf("%w: --versions %q: use major versions, as in 15,18", errUsage, version)
		}
	}
	known := make([]string, 0, len(trials))
	for _, t := range trials {
		known = append(known, t.workload, t.name())
	}
	for _, name := range o.only {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%w: --only %q: there is no such workload; see --list", errUsage, name)
		}
	}
	return nil
}

func (o options) wants(t trial) bool {
	return len(o.only) == 0 || slices.Contains(o.only, t.workload) || slices.Contains(o.only, t.name())
}

// sized is how many of a workload's full number there are at this scale, one at least.
func (o options) sized(full int) int { return max(1, int(float64(full)*o.scale)) }

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
