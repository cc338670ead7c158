// Bench compares Syncline with PostgreSQL's own logical replication: the same work on fresh clusters with the same
// settings, on one machine in one run, round by round in turn. Every run ends with a comparison of all rows; a run whose
// rows differ has no time. docs/performance.md says what is measured and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes, as those of syncline.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitFailed)
	}
}

// run measures what the arguments ask for. What was measured is printed also when something failed.
func run(ctx context.Context, args []string) error {
	o, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	b := &bench{options: o, progress: os.Stderr}
	err = b.run(ctx)
	if ctx.Err() != nil {
		err = errors.Join(errors.New("interrupted: everything that was started is stopped and removed"), err)
	}
	if !errors.Is(err, errUsage) {
		err = errors.Join(err, b.save())
	}
	return errors.Join(err, b.results().write(os.Stdout))
}
