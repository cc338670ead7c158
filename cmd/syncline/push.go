package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
)

func newPushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push",
		Short: "Replicate from a primary to a replica that cannot reach it",
		Long: `A push is a replication that the primary begins: it connects to the replica's server, and the replica reads through that connection
what it would read had it connected itself. These commands are for the primary; the replica shows the replication as any other.`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPushCreateCommand(), newPushListCommand(), newPushShowCommand(), newPushLogCommand(), newPushUpdateCommand(), newPushStartCommand(), newPushStopCommand(), newPushDeleteCommand())
	return cmd
}

// pushCall is a call to a primary's pusher.
func pushCall(ctx context.Context, f *clientFlags, run func(ctx context.Context, client pushv1.PushServiceClient) error) error {
	return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := short(ctx)
		defer cancel()
		return flagError(run(ctx, pushv1.NewPushServiceClient(conn)), pushFlagNames)
	})
}

// onePush is the check of a command for one push.
func onePush(cmd *cobra.Command, args []string) error {
	return wrongUse(func(*cobra.Command, []string) error {
		if len(args) != 1 {
			return fmt.Errorf("one NAME of a push is expected, not %d", len(args))
		}
		return nil
	})(cmd, args)
}

func newPushCreateCommand() *cobra.Command {
	var f clientFlags
	var p pushFlags
	var only usedSetFlags
	cmd := &cobra.Command{
		Use:   "create NAME --target HOST:PORT",
		Short: "Begin to push to a replica",
		Long: `Stores the push, and begins it: the replica is asked to create a replication whose source is this push, by the same checks as
` + "`syncline replication create`" + ` there. The token or the certificate has to be an operator's at the replica. Without --set everything is
pushed; with it the replica can read nothing beyond the set. The connection is made again after any break, and after a restart.`,
		Example: `  syncline push create berlin --target replica.example:7500 --target-tls-ca ca.pem --target-token-file berlin.token
  syncline push create acme --target acme.example:7500 --set by-org --param org=acme --target-tls --target-token-file acme.token
  syncline push create branch --target 10.1.0.5:7500 --target-proxy socks5h://proxy:1080 --target-tls-ca ca.pem --compress zstd`,
		Args: onePush,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := p.finish()
			if err != nil {
				return err
			}
			if spec.GetTarget() == "" {
				return usageError{errors.New("--target (SYNCLINE_TARGET) is needed: the gRPC address of a replica, such as db2:7500")}
			}
			spec.Set, spec.Parameters = only.set, only.parameters
			return pushCall(cmd.Context(), &f, func(ctx context.Context, client pushv1.PushServiceClient) error {
				answer, err := client.CreatePush(ctx, &pushv1.CreatePushRequest{Name: args[0], Spec: spec})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer.GetPush(), func(out io.Writer, p *pushv1.Push) {
					fmt.Fprintf(out, "push %s is created\nnext: syncline push show %s --addr %s\n", p.GetName(), p.GetName(), f.address)
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	p.register(cmd.Flags())
	p.registerOptions(cmd.Flags())
	only.register(cmd.Flags())
	cmd.Flags().Lookup("set").Usage = "push only what this set of the primary selects; everything when empty"
	return cmd
}

func newPushListCommand() *cobra.Command {
	var f clientFlags
	var watch bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the pushes", Args: wrongUse(cobra.NoArgs), Example: "  syncline push list\n  syncline push list --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
					return watchPushes(ctx, &f, cmd.OutOrStdout(), pushv1.NewPushServiceClient(conn))
				})
			}
			return pushCall(cmd.Context(), &f, func(ctx context.Context, client pushv1.PushServiceClient) error {
				answer, err := client.ListPushes(ctx, &pushv1.ListPushesRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderPushes)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().BoolVar(&watch, "watch", false, "go on with each that changes; with --json one answer on a line")
	withoutVariable(cmd.Flags().Lookup("watch"))
	return cmd
}

// newOnePushCommand makes a command that does something with one push and shows it.
func newOnePushCommand(use, about string, run func(ctx context.Context, client pushv1.PushServiceClient, name string) (*pushv1.Push, error)) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: use + " NAME", Short: about, Args: onePush, Example: "  syncline push " + use + " berlin",
		RunE: func(cmd *cobra.Command, args []string) error {
			return pushCall(cmd.Context(), &f, func(ctx context.Context, client pushv1.PushServiceClient) error {
				one, err := run(ctx, client, args[0])
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), one, renderPush)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func newPushShowCommand() *cobra.Command {
	return newOnePushCommand("show", "Show one push, and what its replica does", func(ctx context.Context, client pushv1.PushServiceClient, name string) (*pushv1.Push, error) {
		answer, err := client.GetPush(ctx, &pushv1.GetPushRequest{Name: name})
		return answer.GetPush(), err
	})
}

func newPushStartCommand() *cobra.Command {
	return newOnePushCommand("start", "Start a stopped or failed push, or have one that waits try again at once", func(ctx context.Context, client pushv1.PushServiceClient, name string) (*pushv1.Push, error) {
		answer, err := client.StartPush(ctx, &pushv1.StartPushRequest{Name: name})
		return answer.GetPush(), err
	})
}

func newPushStopCommand() *cobra.Command {
	return newOnePushCommand("stop", "Stop a push; it stays stopped over restarts, and its replica waits", func(ctx context.Context, client pushv1.PushServiceClient, name string) (*pushv1.Push, error) {
		answer, err := client.StopPush(ctx, &pushv1.StopPushRequest{Name: name})
		return answer.GetPush(), err
	})
}

func newPushUpdateCommand() *cobra.Command {
	var f clientFlags
	var p pushFlags
	request := &pushv1.UpdatePushRequest{}
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change how a push reaches its replica",
		Long: `Changes what the flags name and leaves the rest as it is. What is pushed is decided when a push is created; how the replica
applies it is changed there, with ` + "`syncline replication update`" + `. Only --addr, --json and the flags of the connection to the
primary can be set by variables here.`,
		Example: `  syncline push update berlin --target-token-file new.token
  syncline push update berlin --target replica2.example:7500 --target-token-file berlin.token`,
		Args: onePush,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if request.Spec, err = p.finish(); err != nil {
				return err
			}
			request.Spec.Options = nil
			request.Name, request.UpdateMask = args[0], p.changed(cmd.Flags())
			if len(request.GetUpdateMask().GetPaths()) == 0 {
				return usageError{errors.New("nothing to change: give the flags of what shall change; see `syncline push update --help`")}
			}
			return pushCall(cmd.Context(), &f, func(ctx context.Context, client pushv1.PushServiceClient) error {
				answer, err := client.UpdatePush(ctx, request)
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer.GetPush(), renderPush)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	p.registerForUpdate(cmd.Flags(), &request.Etag)
	return cmd
}

func newPushDeleteCommand() *cobra.Command {
	var f clientFlags
	request := &pushv1.DeletePushRequest{}
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop and forget a push; the replica's tables and their rows stay", Args: onePush,
		Example: `  syncline push delete berlin
  syncline push delete berlin --replication`,
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			return pushCall(cmd.Context(), &f, func(ctx context.Context, client pushv1.PushServiceClient) error {
				answer, err := client.DeletePush(ctx, request)
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, func(out io.Writer, _ *pushv1.DeletePushResponse) {
					fmt.Fprintf(out, "push %s is deleted; the replica's tables and their rows stay\n", args[0])
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().BoolVar(&request.DeleteReplication, "replication", false, "delete the replica's replication first; without it that one stays, and waits for a push")
	cmd.Flags().StringVar(&request.Etag, "etag", "", "delete it only if its etag is this one")
	for _, name := range []string{"replication", "etag"} {
		withoutVariable(cmd.Flags().Lookup(name))
	}
	return cmd
}

func pushState(p *pushv1.Push) string { return enumText(p.GetState().String(), "PUSH_STATE_") }

func renderPushes(out io.Writer, answer *pushv1.ListPushesResponse) {
	if len(answer.GetPushes()) == 0 {
		fmt.Fprintln(out, "no pushes; create one with `syncline push create NAME --target HOST:PORT`")
		return
	}
	rows := [][]string{{"NAME", "STATE", "TARGET", "SET", "REPLICA", "POSITION", "LAG", "REASON"}}
	for _, p := range answer.GetPushes() {
		set := p.GetSpec().GetSet()
		if set == "" {
			set = "*"
		}
		rows = append(rows, []string{
			p.GetName(), pushState(p), p.GetSpec().GetTarget(), set, replicaState(p), lsn(p.GetPosition().GetLsn()), size(p.GetLagBytes()), why(p.GetReasonCode(), p.GetReason()),
		})
	}
	table(out, rows)
}

// replicaState is what the replica was last heard to do.
func replicaState(p *pushv1.Push) string {
	if p.GetReplicationState() == applierv1.State_STATE_UNSPECIFIED {
		return "-"
	}
	return stateName(p.GetReplicationState())
}

func renderPush(out io.Writer, p *pushv1.Push) {
	rows := [][]string{{"name", p.GetName()}}
	if text := p.GetSpec().GetDescription(); text != "" {
		rows = append(rows, []string{"description", text})
	}
	rows = append(rows, []string{"state", pushState(p) + " since " + stamp(p.GetStateTime())})
	if p.GetReason() != "" {
		side := "a fault of the target or the way to it"
		if p.GetSide() == applierv1.FaultSide_FAULT_SIDE_LOCAL {
			side = "to be mended here"
		}
		rows = append(rows, []string{"reason", why(p.GetReasonCode(), p.GetReason())}, []string{"side", side})
	}
	if n := p.GetErrorCount(); n > 0 {
		rows = append(rows, []string{"failures", fmt.Sprintf("%d in a row", n)})
	}
	if p.GetNextRetryTime() != nil {
		rows = append(rows, []string{"next retry", stamp(p.GetNextRetryTime())})
	}
	target := p.GetSpec().GetTarget()
	if p.GetTargetServerId() != "" {
		target += " (server " + p.GetTargetServerId() + ")"
	}
	pushed := "the whole database"
	if set := p.GetSpec().GetSet(); set != "" {
		pushed = "set " + set
		for _, name := range slices.Sorted(maps.Keys(p.GetSpec().GetParameters())) {
			pushed += " " + name + "=" + p.GetSpec().GetParameters()[name]
		}
	}
	replica := replicaState(p)
	if p.GetReplicationReason() != "" {
		replica += " (" + p.GetReplicationReason() + ")"
	}
	rows = append(rows, []string{"target", target}, []string{"pushed", pushed}, []string{"replica", replica},
		[]string{"position", lsn(p.GetPosition().GetLsn())}, []string{"lag", strings.TrimSpace(size(p.GetLagBytes()) + pushLag(p))}, []string{"sent", size(p.GetSentBytes())})
	if p.GetLastContactTime() != nil {
		rows = append(rows, []string{"last heard", stamp(p.GetLastContactTime())})
	}
	table(out, append(rows, []string{"etag", p.GetEtag()}))
}

func pushLag(p *pushv1.Push) string {
	if p.LagSeconds == nil {
		return ""
	}
	return fmt.Sprintf(", %.1f s", p.GetLagSeconds())
}
