package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/seed0419d559/syncline/internal/demo"
)

func newDemoCommand() *cobra.Command {
	o := demo.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Replicate a live database on servers of its own, and prove it",
		Long: `Starts a primary and replicas on this machine, each with its own PostgreSQL server in a temporary directory, fills the
primary, copies and follows it while it is written to, kills an applier on the way, and compares every row at the end.
Everything is removed again. PostgreSQL has to be on this machine; ` + "`make demo`" + ` fetches it.`,
		Example: `  syncline demo
  syncline demo --keep --duration 2m --scale 0.1`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the path of this program: %w", err)
			}
			o.Binary, o.Out, o.Terminal = binary, cmd.OutOrStdout(), term.IsTerminal(int(os.Stdout.Fd()))
			err = demo.Run(cmd.Context(), o)
			if errors.Is(err, demo.ErrOptions) {
				return usageError{err}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.Keep, "keep", false, "leave everything running at the end, until Ctrl-C")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "how long to show replication live")
	flags.Float64Var(&o.Scale, "scale", o.Scale, "size of the data; 1 is some 400 MB")
	flags.IntVar(&o.Replicas, "replicas", o.Replicas, "number of replicas")
	return cmd
}
