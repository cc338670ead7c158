package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func newFollowCommand() *cobra.Command {
	var f clientFlags
	var from string
	var limit int64
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
			if limit < 0 {
				return usageError{errors.New("--limit: expected 0 for no limit, or a number of transactions")}
			}
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				p := newPursuit(recordPrinter{out: out, json: f.json}, limit)
				err := p.follow(ctx, conn, request)
				if flushed := out.Flush(); flushed != nil {
					return fmt.Errorf("print: %w", flushed)
				}
				if errors.Is(err, errEnough) || cmd.Context().Err() != nil {
					return nil //nolint:nilerr // whoever ends it has seen enough
				}
				return p.explain(err)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().StringVar(&from, "from", "now", "earliest, now, or a position LOGID@LSN")
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

// errEnough ends following after the limit.
var errEnough = errors.New("enough transactions")

// errAnswer says that the server sent something that is no answer of Follow.
var errAnswer = errors.New("the server's answer is malformed; is it a newer version?")

// The fields of FollowResponse. Blocks are read in their stored form, whose chain and checksum are then checked as an
// applier does: a hole is an error here too.
const (
	fieldStarted  = 1
	fieldRelation = 2
	fieldBlock    = 3
)

// pursuit reads a stream and prints its records.
type pursuit struct {
	printer   recordPrinter
	limit     int64 // 0 for none
	seen      int64 // transactions
	position  change.Position
	relations map[change.RelationHash]*changev1.Relation
	assembler *block.Assembler // nil before the stream has said where it begins
	record    block.Record
}

func newPursuit(p recordPrinter, limit int64) *pursuit {
	return &pursuit{printer: p, limit: limit, relations: make(map[change.RelationHash]*changev1.Relation)}
}

func (p *pursuit) follow(ctx context.Context, conn grpc.ClientConnInterface, request *loggerv1.FollowRequest) error {
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
		if err := p.take(frame.Data); err != nil {
			return err
		}
	}
}

// explain tells from where the rest can be had after the stream broke.
func (p *pursuit) explain(err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the server has ended the stream")
	}
	if p.seen == 0 || p.position == (change.Position{}) {
		return err
	}
	return fmt.Errorf("%w; go on with --from %s", err, p.position)
}

// take reads one FollowResponse.
func (p *pursuit) take(data []byte) error {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 || kind != protowire.BytesType {
		return errAnswer
	}
	body, m := protowire.ConsumeBytes(data[n:])
	if m < 0 || n+m != len(data) {
		return errAnswer
	}
	switch number {
	case fieldStarted:
		return p.start(body)
	case fieldRelation:
		relation := &changev1.Relation{}
		if err := proto.Unmarshal(body, relation); err != nil || len(relation.GetHash()) != len(change.RelationHash{}) {
			return fmt.Errorf("read relation: %w", errAnswer)
		}
		p.relations[change.RelationHash(relation.GetHash())] = relation
	case fieldBlock:
		b, err := block.Parse(body)
		if err != nil {
			return err
		}
		return p.block(b)
	}
	return nil // a heartbeat
}

func (p *pursuit) start(body []byte) error {
	var started loggerv1.Started
	if err := proto.Unmarshal(body, &started); err != nil {
		return fmt.Errorf("read start: %w", errAnswer)
	}
	id, err := change.ParseLogID(started.GetPosition().GetLogId())
	if err != nil {
		return fmt.Errorf("read start: %w", err)
	}
	p.position = change.Position{LogID: id, LSN: change.LSN(started.GetPosition().GetLsn())}
	p.assembler = block.NewAssembler(p.position)
	return nil
}

func (p *pursuit) block(b *block.Block) error {
	if p.assembler == nil {
		return errAnswer
	}
	if err := p.assembler.Push(b); err != nil {
		return err
	}
	for {
		more, err := p.assembler.Next(&p.record)
		if err != nil {
			return err
		}
		if !more {
			return p.printer.out.Flush()
		}
		if err := p.printer.print(b, &p.record, p.relations); err != nil {
			return err
		}
		if p.record.Kind != block.KindCommit {
			continue
		}
		p.position.LSN = p.record.Commit.EndLSN
		if p.seen++; p.seen == p.limit {
			return errEnough
		}
	}
}
