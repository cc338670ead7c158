package applier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// The fields of FollowResponse, read by hand so that blocks stay as they are.
const (
	fieldStarted   = 1
	fieldRelation  = 2
	fieldBlock     = 3
	fieldHeartbeat = 4
)

const (
	// eventsAhead bounds how many blocks are received before they are applied: about 4 MiB of ordinary blocks.
	eventsAhead = 16
	// heartbeat is asked of the logger; a stream that is silent for much longer is dead.
	heartbeat = time.Second
)

// errSilent says that the source sent nothing, not even a heartbeat, for as long as is waited for one.
var errSilent = errors.New("the source sent no heartbeat")

// follow opens the stream that is asked for, of what is selected, and gives its events until it ends, or is silent for longer than silence.
// Heartbeats go to heard instead. The channel's last event holds the error that ended the stream.
func follow(ctx context.Context, conn grpc.ClientConnInterface, selected usedSet, request *loggerv1.FollowRequest, silence time.Duration, heard func(*loggerv1.Heartbeat)) <-chan apply.Event {
	events := make(chan apply.Event, eventsAhead)
	go func() {
		defer close(events)
		request.Set, request.Parameters, request.SetVersion, request.Selection = selected.name, selected.parameters, selected.version, selected.own
		err := receive(ctx, conn, request, silence, heard, events)
		select {
		case events <- apply.Event{Err: err}:
		case <-ctx.Done():
		}
	}()
	return events
}

func receive(ctx context.Context, conn grpc.ClientConnInterface, request *loggerv1.FollowRequest, silence time.Duration, heard func(*loggerv1.Heartbeat), events chan<- apply.Event) error {
	after, err := positionOf(request.GetPosition())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := rpc.OpenFrames(ctx, conn, loggerv1.LoggerService_Follow_FullMethodName, request)
	if err != nil {
		return streamError(ctx, err, silence)
	}
	for {
		var frame rpc.Frame
		if err := stream.RecvMsg(&frame); err != nil {
			return streamError(ctx, err, silence)
		}
		watchdog.Reset(silence)
		event, err := decodeFrame(frame.Data, after, heard)
		if err != nil {
			return err
		}
		if event == (apply.Event{}) {
			continue
		}
		// A slow target is no dead source.
		watchdog.Stop()
		select {
		case events <- event:
		case <-ctx.Done():
			return ctx.Err()
		}
		watchdog.Reset(silence)
	}
}

func streamError(ctx context.Context, err error, silence time.Duration) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return fmt.Errorf("follow the source: %w for %s", errSilent, silence)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("follow the source: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("follow the source: %w", err)
}

// decodeFrame reads one FollowResponse. An event without a field means that there is nothing to apply.
func decodeFrame(data []byte, after change.Position, heard func(*loggerv1.Heartbeat)) (apply.Event, error) {
	number, typ, n := protowire.ConsumeTag(data)
	if n < 0 || typ != protowire.BytesType {
		return apply.Event{}, errors.New("follow the source: an answer is malformed")
	}
	body, m := protowire.ConsumeBytes(data[n:])
	if m < 0 || n+m != len(data) {
		return apply.Event{}, errors.New("follow the source: an answer is malformed")
	}
	switch number {
	case fieldBlock:
		b, err := block.Parse(body)
		if err != nil {
			return apply.Event{}, fmt.Errorf("follow the source: %w", err)
		}
		return apply.Event{Block: b}, nil
	case fieldRelation:
		var relation changev1.Relation
		if err := proto.Unmarshal(body, &relation); err != nil {
			return apply.Event{}, fmt.Errorf("follow the source: read relation: %w", err)
		}
		r, err := relationOf(&relation)
		return apply.Event{Relation: r}, err
	case fieldHeartbeat:
		var h loggerv1.Heartbeat
		if err := proto.Unmarshal(body, &h); err != nil {
			return apply.Event{}, fmt.Errorf("follow the source: read heartbeat: %w", err)
		}
		heard(&h)
		return apply.Event{}, nil
	case fieldStarted:
		var started loggerv1.Started
		if err := proto.Unmarshal(body, &started); err != nil {
			return apply.Event{}, fmt.Errorf("follow the source: read start: %w", err)
		}
		position, err := positionOf(started.GetPosition())
		if err != nil {
			return apply.Event{}, fmt.Errorf("follow the source: read start: %w", err)
		}
		if position != after {
			return apply.Event{}, fmt.Errorf("%w: the stream begins at %s instead of %s", apply.ErrStreamOrder, position, after)
		}
		return apply.Event{}, nil
	}
	return apply.Event{}, fmt.Errorf("follow the source: an answer of unknown kind %d; is the source newer than this applier?", number)
}

// relationOf reads a relation and checks it against its hash.
func relationOf(p *changev1.Relation) (*change.Relation, error) {
	r := &change.Relation{OID: p.GetOid(), Schema: p.GetSchema(), Name: p.GetName()}
	if len(p.GetIdentity()) != 1 {
		return nil, fmt.Errorf("relation %s.%s has the unknown replica identity %q", r.Schema, r.Name, p.GetIdentity())
	}
	r.Identity = change.Identity(p.GetIdentity()[0])
	for _, c := range p.GetColumns() {
		r.Columns = append(r.Columns, change.Column{Name: c.GetName(), TypeOID: c.GetTypeOid(), TypeModifier: c.GetTypeModifier(), Key: c.GetKey()})
	}
	if hash := r.Hash(); string(hash[:]) != string(p.GetHash()) {
		return nil, fmt.Errorf("relation %s.%s does not match its hash", r.Schema, r.Name)
	}
	return r, nil
}

func positionProto(p change.Position) *changev1.Position {
	return &changev1.Position{LogId: p.LogID.String(), Lsn: uint64(p.LSN)}
}

func positionOf(p *changev1.Position) (change.Position, error) {
	id, err := change.ParseLogID(p.GetLogId())
	if err != nil {
		return change.Position{}, err
	}
	return change.Position{LogID: id, LSN: change.LSN(p.GetLsn())}, nil
}
