// Command syncline keeps copies of a PostgreSQL database up to date. `syncline help` lists what it does; each subcommand has a
// file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitDone       = 0
	exitFailed     = 1
	exitWrongUse   = 2
	exitNotReached = 3 // a wait ended before what was waited for came
)

// errNotReached says that what was waited for did not come in time.
var errNotReached = errors.New("not reached in time")

// usageError is a wrong use of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(execute(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// execute runs one command and returns its exit code.
func execute(ctx context.Context, args, environment []string, out, errOut io.Writer) int {
	root := newRoot(environment)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(errOut, "syncline: "+oneLine(rpc.Message(err)))
	return exitCode(err)
}

// oneLine joins the lines of an error that is made of several, as pgx's are.
func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitWrongUse
	case errors.Is(err, errNotReached):
		return exitNotReached
	}
	return exitFailed
}

func newRoot(environment []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "syncline",
		Short: "Keep copies of a PostgreSQL database up to date",
		Long: `Syncline keeps copies of a PostgreSQL database up to date.

Beside the primary runs ` + "`syncline primary`" + `, beside each replica ` + "`syncline replica`" + `;
` + "`syncline replication create`" + ` on the replica makes the first copy and follows from there.
Flags can be set by variables too: --max-row-bytes by SYNCLINE_MAX_ROW_BYTES.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 not reached in time (` + "`replication wait`" + `).`,
		Example: `  syncline primary --postgres postgres://db1/shop --data /var/lib/syncline
  syncline replica --postgres postgres://db2/shop
  syncline replication create shop --source db1:7400 --wait
  source <(syncline completion bash)`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range unknownVariables(cmd.Root(), environment) {
				fmt.Fprintf(cmd.ErrOrStderr(), "syncline: variable %s is of no flag and has no effect\n", name)
			}
			if err := refuseShown(cmd.Flags()); err != nil {
				return err
			}
			return bindVariables(cmd.Flags(), environment)
		},
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
	})
	root.AddCommand(serverCommands()...)
	root.AddCommand(newReplicationCommand(), newStatusCommand(), newVerifyCommand(), newRepairCommand(), newSyncCommand(), newSetCommand(), newPushCommand(), newLogCommand(), newDumpCommand(), newRestoreCommand(), newPrepareCommand(), newBackupCommand(), newFollowCommand(),
		newUpdatedCommand(), newFollowersCommand(), newSnapshotsCommand(), newServerGroup(), newHealthCommand(),
		newGatewayCommand(), newPrincipalCommand(), newDemoCommand())
	complete(root, environment)
	return root
}

// wrongUse makes the errors of an argument check wrong uses.
func wrongUse(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
		}
		return nil
	}
}
