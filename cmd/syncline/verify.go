package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// errNotEqual says that a verification came to its end and did not find everything equal.
var errNotEqual = errors.New("not verified")

// verifyFlags are the flags that set what the API calls otherwise.
var verifyFlags = map[string]string{
	"include_tables": "--table", "exclude_tables": "--exclude-table", "max_differences": "--differences", "max_hold": "--max-hold", "name": "NAME",
}

func newVerifyCommand() *cobra.Command {
	var f clientFlags
	hold := 30 * time.Second
	request := &applierv1.VerifyReplicationRequest{}
	cmd := &cobra.Command{
		Use:   "verify NAME",
		Short: "Compare a replica's rows with its source's, while both are in use",
		Long: `Compares every row of a replication's tables on both sides as of the same position of the source, so that what is on its way is
no difference and a real one is never missed. Names each row that differs by its key. Exit code 0 when all is equal, 1 otherwise.

Applying stands still for a moment, until the source has opened a snapshot; that waits for transactions which are writing there.`,
		Example: `  syncline verify shop
  syncline verify shop --table public.orders --differences 1000`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name, request.MaxHold = args[0], durationpb.New(hold)
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				return verify(ctx, cmd, &f, client, request)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := cmd.Flags()
	patternsFlag(flags, &request.IncludeTables, "table", "compare only these tables of the source: schema.table, schema.*; may be repeated")
	patternsFlag(flags, &request.ExcludeTables, "exclude-table", "leave these tables out")
	flags.Int32Var(&request.MaxDifferences, "differences", 0, "how many differences of each table are shown; 0 for the default of 100")
	flags.DurationVar(&hold, "max-hold", hold, "how long applying may stand still until the source has its snapshot")
	return cmd
}

func verify(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, request *applierv1.VerifyReplicationRequest) error {
	stream, err := client.VerifyReplication(ctx, request)
	if err != nil {
		return err
	}
	progress := &verifyLines{out: cmd.ErrOrStderr()}
	var result *applierv1.VerifyResult
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && result != nil:
			return verdict(cmd.OutOrStdout(), f, result)
		case errors.Is(err, io.EOF):
			return errors.New("the replica has ended the verification; is it being shut down?")
		case err != nil:
			return flagError(err, verifyFlags)
		}
		if p := answer.GetProgress(); p != nil {
			progress.update(p)
		} else if r := answer.GetResult(); r != nil {
			result = r
		}
		if f.json && answer.GetProgress() == nil {
			err = printJSON(cmd.OutOrStdout(), verifyEvent(answer), false)
		} else if !f.json {
			renderVerification(cmd.OutOrStdout(), answer)
		}
		if err != nil {
			return err
		}
	}
}

// verifyEvent is what an answer holds.
func verifyEvent(answer *applierv1.VerifyReplicationResponse) proto.Message {
	switch event := answer.GetEvent().(type) {
	case *applierv1.VerifyReplicationResponse_Difference:
		return event.Difference
	case *applierv1.VerifyReplicationResponse_Table:
		return event.Table
	case *applierv1.VerifyReplicationResponse_Result:
		return event.Result
	}
	return answer
}

// verdict tells the result, and makes anything but equality a failure.
func verdict(out io.Writer, f *clientFlags, r *applierv1.VerifyResult) error {
	if r.GetEqual() {
		if !f.json {
			fmt.Fprintf(out, "equal: %s rows in %d tables, as of %s\n", count(r.GetRows()), r.GetTablesEqual(), lsn(r.GetPosition().GetLsn()))
		}
		return nil
	}
	return fmt.Errorf("%w: %d tables differ, %d could not be compared, %d are equal", errNotEqual, r.GetTablesDifferent(), r.GetTablesNotCompared(), r.GetTablesEqual())
}

// verifyLines prints the progress: what is new at once, and numbers now and then.
type verifyLines struct {
	out  io.Writer
	said string
	last time.Time
}

func (v *verifyLines) update(p *applierv1.VerifyProgress) {
	now := time.Now()
	what := p.GetPhase()
	if p.GetDetail() != "" {
		what += ": " + p.GetDetail()
	}
	if what == v.said && now.Sub(v.last) < lineInterval {
		return
	}
	v.said, v.last = what, now
	line := what
	if p.GetTables() > 0 {
		line += fmt.Sprintf("  %d of %d tables, %s of about %s rows", p.GetTablesDone(), p.GetTables(), count(p.GetRows()), count(max(p.GetRows(), p.GetEstimatedRows())))
	}
	fmt.Fprintln(v.out, printable(line))
}
