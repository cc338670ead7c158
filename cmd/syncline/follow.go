package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
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
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				p := &printer{out: out, json: f.json, limit: limit, relations: map[string]*changev1.Relation{}}
				err := p.follow(ctx, loggerv1.NewLoggerServiceClient(conn), request)
				if flushed := out.Flush(); flushed != nil {
					return fmt.Errorf("print: %w", flushed)
				}
				if errors.Is(err, errEnough) || cmd.Context().Err() != nil {
					return nil
				}
				return err
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

// printer prints the records of blocks.
type printer struct {
	out       *bufio.Writer
	json      bool
	limit     int64
	seen      int64
	logID     string
	relations map[string]*changev1.Relation // by hash
	block     *changev1.Block
	pieces    []byte // of a record in fragments
}

func (p *printer) follow(ctx context.Context, client loggerv1.LoggerServiceClient, request *loggerv1.FollowRequest) error {
	stream, err := client.Follow(ctx, request)
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case answer.GetStarted() != nil:
			p.logID = answer.GetStarted().GetPosition().GetLogId()
		case answer.GetRelation() != nil:
			p.relations[string(answer.GetRelation().GetHash())] = answer.GetRelation()
		case answer.GetBlock() != nil:
			p.block = answer.GetBlock()
			for _, record := range p.block.GetRecords() {
				if err := p.record(record); err != nil {
					return err
				}
			}
			if err := p.out.Flush(); err != nil {
				return err
			}
		}
	}
}

func (p *printer) record(r *changev1.Record) error {
	if f := r.GetFragment(); f != nil {
		p.pieces = append(p.pieces, f.GetData()...)
		if !f.GetLast() {
			return nil
		}
		var whole changev1.Record
		if err := proto.Unmarshal(p.pieces, &whole); err != nil {
			return fmt.Errorf("read a record in fragments: %w", err)
		}
		p.pieces = nil
		r = &whole
	}
	line, err := p.line(r)
	if err != nil || line == nil {
		return err
	}
	if p.json {
		err = line.printJSON(p.out)
	} else {
		line.print(p.out)
	}
	if err == nil && r.GetCommit() != nil {
		if p.seen++; p.seen == p.limit {
			return errEnough
		}
	}
	return err
}

// line is one printed record.
type line struct {
	Kind     string         `json:"kind"`
	XID      uint32         `json:"xid,omitempty"`
	Time     string         `json:"commit_time,omitempty"`
	Position string         `json:"position,omitempty"`
	Tables   []string       `json:"tables,omitempty"`
	Table    string         `json:"table,omitempty"`
	Old      map[string]any `json:"old,omitempty"`
	New      map[string]any `json:"new,omitempty"`
	Prefix   string         `json:"prefix,omitempty"`
	Content  []byte         `json:"content,omitempty"`
	Origin   string         `json:"origin,omitempty"`

	oldText, newText string
}

func (p *printer) line(r *changev1.Record) (*line, error) {
	switch {
	case r.GetBegin() != nil:
		b := r.GetBegin()
		return &line{Kind: "begin", XID: b.GetXid(), Time: commitTime(b.GetCommitTime())}, nil
	case r.GetCommit() != nil:
		c := r.GetCommit()
		return &line{Kind: "commit", XID: c.GetXid(), Time: commitTime(c.GetCommitTime()), Position: p.logID + "@" + lsn(c.GetEndLsn())}, nil
	case r.GetMessage() != nil:
		return &line{Kind: "message", Prefix: r.GetMessage().GetPrefix(), Content: r.GetMessage().GetContent()}, nil
	case r.GetOrigin() != nil:
		return &line{Kind: "origin", Origin: r.GetOrigin().GetServerId() + r.GetOrigin().GetName()}, nil
	case r.GetTruncate() != nil:
		l := &line{Kind: "truncate"}
		for _, index := range r.GetTruncate().GetRelations() {
			relation, err := p.relation(index)
			if err != nil {
				return nil, err
			}
			l.Tables = append(l.Tables, relation.GetSchema()+"."+relation.GetName())
		}
		return l, nil
	case r.GetChange() != nil:
		return p.change(r.GetChange())
	}
	return nil, nil
}

func commitTime(t int64) string {
	return change.Timestamp(t).Time().Format("2006-01-02T15:04:05.000000Z07:00")
}

func (p *printer) relation(index uint32) (*changev1.Relation, error) {
	hashes := p.block.GetRelations()
	if int(index) >= len(hashes) || p.relations[string(hashes[index])] == nil {
		return nil, errors.New("a change came before its relation")
	}
	return p.relations[string(hashes[index])], nil
}

func (p *printer) change(c *changev1.Change) (*line, error) {
	relation, err := p.relation(c.GetRelation())
	if err != nil {
		return nil, err
	}
	l := &line{
		Kind:  strings.ToLower(strings.TrimPrefix(c.GetOperation().String(), "OPERATION_")),
		Table: relation.GetSchema() + "." + relation.GetName(),
	}
	if c.GetOld() != nil {
		l.Old, l.oldText = values(relation, c.GetOld(), c.GetOldIsKey())
	}
	if c.GetNew() != nil {
		l.New, l.newText = values(relation, c.GetNew(), false)
	}
	return l, nil
}

// values returns a row by column name, and as text. Unchanged large values are left out.
func values(relation *changev1.Relation, row *changev1.Row, keyOnly bool) (map[string]any, string) {
	named := map[string]any{}
	var text []string
	next := 0
	for i, kind := range row.GetKinds() {
		column := relation.GetColumns()[i]
		switch {
		case kind == 't':
			value := string(row.GetValues()[next])
			next++
			named[column.GetName()] = value
			text = append(text, column.GetName()+"="+value)
		case kind == 'n' && (!keyOnly || column.GetKey()):
			named[column.GetName()] = nil
			text = append(text, column.GetName()+"=NULL")
		}
	}
	return named, strings.Join(text, " ")
}

func (l *line) printJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(l)
}

func (l *line) print(out io.Writer) {
	switch l.Kind {
	case "begin":
		fmt.Fprintf(out, "BEGIN %d  %s\n", l.XID, l.Time)
	case "commit":
		fmt.Fprintf(out, "COMMIT %d  %s\n", l.XID, l.Position)
	case "message":
		fmt.Fprintf(out, "  message %s %q\n", l.Prefix, l.Content)
	case "origin":
		fmt.Fprintf(out, "  origin %s\n", l.Origin)
	case "truncate":
		fmt.Fprintf(out, "  truncate %s\n", strings.Join(l.Tables, ", "))
	case "update":
		if l.oldText != "" {
			fmt.Fprintf(out, "  update %s: %s → %s\n", l.Table, l.oldText, l.newText)
			return
		}
		fmt.Fprintf(out, "  update %s: %s\n", l.Table, l.newText)
	default:
		fmt.Fprintf(out, "  %s %s: %s%s\n", l.Kind, l.Table, l.oldText, l.newText)
	}
}
