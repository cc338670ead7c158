package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/transcript"
)

func newFollowCommand() *cobra.Command {
	var f clientFlags
	var from string
	var limit int64
	var only usedSetFlags
	cmd := &cobra.Command{
		Use:   "follow",
		Short: "Print a primary's committed transactions as they come",
		Long: `Prints committed transactions in commit order, each once, from --from on: earliest, now, or a position LOGID@LSN as it is printed
by this command and by dump. With --json one object for each line.`,
		Example: `  syncline follow
  syncline follow --from earliest --limit 10 --json`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := followRequest(from)
			if err != nil {
				return err
			}
			request.Set, request.Parameters = only.set, only.parameters
			if limit < 0 {
				return usageError{errors.New("--limit: expected 0 for no limit, or a number of transactions")}
			}
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				reader := transcript.NewReader(&recordPrinter{out: out, json: f.json, limit: limit})
				err := follow(ctx, conn, request, reader, out)
				if flushed := out.Flush(); flushed != nil {
					return fmt.Errorf("print: %w", flushed)
				}
				if errors.Is(err, errEnough) || cmd.Context().Err() != nil {
					return nil //nolint:nilerr // whoever ends it has seen enough
				}
				return explainEnd(reader, err)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().StringVar(&from, "from", "now", "earliest, now, or a position LOGID@LSN")
	only.register(cmd.Flags())
	cmd.Flags().Int64Var(&limit, "limit", 0, "end after this many transactions; 0 for never")
	return cmd
}

func followRequest(from string) (*loggerv1.FollowRequest, error) {
	switch from {
	case "earliest":
		return &loggerv1.FollowRequest{Start: loggerv1.Start_START_EARLIEST}, nil
	case "now":
		return &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW}, nil
	}
	position, err := change.ParsePosition(from)
	if err != nil {
		return nil, usageError{fmt.Errorf("--from: %w, or earliest, or now", err)}
	}
	return &loggerv1.FollowRequest{Position: &changev1.Position{LogId: position.LogID.String(), Lsn: uint64(position.LSN)}}, nil
}

// follow reads a stream until it breaks, and prints what is complete at once.
func follow(ctx context.Context, conn grpc.ClientConnInterface, request *loggerv1.FollowRequest, reader *transcript.Reader, out *bufio.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := rpc.OpenFrames(ctx, conn, loggerv1.LoggerService_Follow_FullMethodName, request)
	if err != nil {
		return err
	}
	for {
		var frame rpc.Frame
		if err := stream.RecvMsg(&frame); err != nil {
			return err
		}
		if err := reader.Take(frame.Data); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
}

// explainEnd tells from where the rest can be had after the stream broke.
func explainEnd(reader *transcript.Reader, err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the server has ended the stream")
	}
	if reader.Transactions() == 0 || reader.Position() == (change.Position{}) {
		return err
	}
	return fmt.Errorf("%w; go on with --from %s", err, reader.Position())
}
