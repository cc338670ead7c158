package logger

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	defaultHeartbeat = time.Second
	minHeartbeat     = 100 * time.Millisecond
	maxHeartbeat     = time.Hour
	maxIdlePause     = 10 * time.Second
	maxFollowerName  = 200
	maxLogWait       = 5 * time.Second
)

// blockTag is the tag of FollowResponse.block: field 3, length-delimited.
const blockTag = 3<<3 | 2

// Follow serves the stored blocks as they are. Each follower has its own place in the log and its own goroutine: one that
// is slow waits for itself only.
func (s *Service) Follow(request *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	heartbeat, err := checkFollow(request)
	if err != nil {
		return err
	}
	idlePause, err := idlePauseOf(request)
	if err != nil {
		return err
	}
	bounds, err := boundsOf(request)
	if err != nil {
		return err
	}
	from, err := s.startOf(request)
	if err != nil {
		return err
	}
	one, err := s.followedSet(ctx, request)
	if err != nil {
		return err
	}
	first, err := s.changes.Find(ctx, from)
	if err != nil {
		return s.positionError(err, from)
	}
	address := ""
	if p, ok := peer.FromContext(ctx); ok {
		address = p.Addr.String()
	}
	entry, err := s.followers.connect(request.GetFollower(), address, from, cancel)
	if err != nil {
		return err
	}
	defer s.followers.disconnect(entry)
	p := &pursuit{
		service: s, stream: stream, entry: entry, sent: from, next: first, heartbeat: heartbeat, pause: idlePause, goal: s.changes.Head().Position.LSN, bounds: bounds,
		known: make(map[change.RelationHash]struct{}),
	}
	if one != nil {
		p.selecting = newSetStream(s.lookup(), one, request.GetParameters(), from)
		p.selecting.enter(s.sharing.join(shareKey(one, request.GetParameters())))
		defer p.selecting.group.leave()
	}
	err = p.run(ctx)
	switch {
	case err == nil:
		return nil
	case stream.Context().Err() != nil:
		return stream.Context().Err() //nolint:wrapcheck // the client or the server ends the stream
	case ctx.Err() != nil:
		return context.Cause(ctx) //nolint:wrapcheck // another stream of the same name has taken over
	case errors.Is(err, changelog.ErrNoLog):
		s.awaitLog(ctx) // it is being begun anew: the error tells the new id
	}
	return s.positionError(err, p.sent)
}

// awaitLog waits a little until the log has an id.
func (s *Service) awaitLog(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxLogWait)
	defer cancel()
	tick := time.NewTicker(maxLogWait / 100)
	defer tick.Stop()
	for s.changes.Ranges().LogID.IsZero() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func checkFollow(request *loggerv1.FollowRequest) (time.Duration, error) {
	if (request.GetPosition() != nil) == (request.GetStart() != loggerv1.Start_START_UNSPECIFIED) {
		return 0, rpc.Invalid("position", "exactly one of position and start has to be set")
	}
	if len(request.GetFollower()) > maxFollowerName {
		return 0, rpc.Invalid("follower", "a name has at most %d bytes", maxFollowerName)
	}
	if request.GetHeartbeat() == nil {
		return defaultHeartbeat, nil
	}
	heartbeat := request.GetHeartbeat().AsDuration()
	if err := request.GetHeartbeat().CheckValid(); err != nil || heartbeat < minHeartbeat || heartbeat > maxHeartbeat {
		return 0, rpc.Invalid("heartbeat", "it has to be from %v to %v", minHeartbeat, maxHeartbeat)
	}
	return heartbeat, nil
}

func idlePauseOf(request *loggerv1.FollowRequest) (time.Duration, error) {
	if request.GetIdlePause() == nil {
		return 0, nil
	}
	pause := request.GetIdlePause().AsDuration()
	if err := request.GetIdlePause().CheckValid(); err != nil || pause < 0 || pause > maxIdlePause {
		return 0, rpc.Invalid("idle_pause", "it has to be from 0 s to %v", maxIdlePause)
	}
	return pause, nil
}

// startOf returns the position after which to begin.
func (s *Service) startOf(request *loggerv1.FollowRequest) (change.Position, error) {
	if err := s.ready(); err != nil {
		return change.Position{}, err
	}
	switch request.GetStart() {
	case loggerv1.Start_START_NOW:
		return s.changes.Head().Position, nil
	case loggerv1.Start_START_EARLIEST:
		ranges := s.changes.Ranges()
		return change.Position{LogID: ranges.LogID, LSN: ranges.First}, nil
	case loggerv1.Start_START_UNSPECIFIED:
	}
	return parsePosition("position", request.GetPosition())
}

func parsePosition(field string, p *changev1.Position) (change.Position, error) {
	id, err := change.ParseLogID(p.GetLogId())
	if err != nil {
		return change.Position{}, rpc.Invalid(field+".log_id", "%v", err)
	}
	if p.GetLsn() == 0 {
		return change.Position{}, rpc.Invalid(field+".lsn", "0 is no position; use start to begin at an end of the log")
	}
	return change.Position{LogID: id, LSN: change.LSN(p.GetLsn())}, nil
}

// pursuit is one follower's way through the log.
type pursuit struct {
	service   *Service
	stream    grpc.ServerStreamingServer[loggerv1.FollowResponse]
	entry     *follower
	sent      change.Position // through of the last block that was sent
	next      uint64          // number of the block to send next
	heartbeat time.Duration
	pause     time.Duration // for which the log may be left unread
	beat      time.Time     // when the last heartbeat was sent
	marked    time.Time     // when the last block was sent
	known     map[change.RelationHash]struct{}
	inside    bool // the last block sent ends inside a transaction
	bounds    bounds
	selecting *setStream // nil when everything is served
	goal      change.LSN // where the log ended when it was looked at last
	unread    time.Time  // until when it is left unread; zero while it is read
}

// run sends blocks and heartbeats until a bound is reached or something fails.
func (p *pursuit) run(ctx context.Context) error {
	started := &loggerv1.Started{Position: positionProto(p.sent), ServerId: p.service.cfg.ServerID}
	if p.selecting != nil {
		started.SetVersion = p.selecting.set.version
	}
	if err := p.stream.Send(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Started{Started: started}}); err != nil {
		return err //nolint:wrapcheck // it is the transport's
	}
	p.bounds.begin(time.Now())
	for p.inside || !p.bounds.reached(p.sent.LSN) {
		if p.idle() && p.bounds.waited(time.Now()) {
			break
		}
		if wait := p.heartbeat - time.Since(p.beat); wait <= 0 {
			if err := p.sendHeartbeat(); err != nil {
				return err
			}
		}
		if err := p.sendMark(ctx); err != nil {
			return err
		}
		if paused, err := p.pauseIdle(ctx); err != nil {
			return err
		} else if paused {
			continue
		}
		b, err := p.read(ctx)
		switch {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			continue // nothing new until the next heartbeat or mark is due
		default:
			return err
		}
		if err := p.send(ctx, b); err != nil {
			return err
		}
	}
	return p.end()
}

// idle tells whether everything has been sent that is durable, or was when the log was looked at last. Inside a large transaction the rest of it is
// still to come.
func (p *pursuit) idle() bool {
	end := p.goal
	if p.pause == 0 {
		end = p.service.changes.Head().Position.LSN
	}
	return !p.inside && end <= p.sent.LSN
}

// sendMark tells how far the log has been read when nothing of the set has come for a while, or when that is the end of the stream.
func (p *pursuit) sendMark(ctx context.Context) error {
	if p.selecting == nil {
		return nil
	}
	if err := p.service.sameSet(ctx, p.selecting.set); err != nil {
		return err
	}
	if !p.selecting.marked() {
		return nil
	}
	through := p.selecting.read
	last := p.bounds.reached(through) || p.bounds.announced() && p.service.changes.Head().Position.LSN <= through
	if time.Since(p.marked) < p.markInterval() && !last {
		return nil
	}
	return p.selecting.mark(func(b *block.Block) error { return p.sendBlock(ctx, b, b.Data(), 0) })
}

func (p *pursuit) markInterval() time.Duration { return max(markWantedInterval, p.pause) }

// pauseIdle leaves the log unread for a while, once everything that was there when it was looked at last is served. paused is false while there is
// more to serve.
func (p *pursuit) pauseIdle(ctx context.Context) (paused bool, err error) {
	read := p.sent.LSN
	if p.selecting != nil {
		read = max(read, p.selecting.read)
	}
	if p.pause == 0 || p.inside || p.selecting != nil && p.selecting.inside || read < p.goal {
		return false, nil
	}
	if p.unread.IsZero() {
		p.unread = time.Now().Add(p.pause)
	}
	until := p.unread
	if next := p.nextDue(); next.Before(until) {
		until = next
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if !until.Equal(p.unread) {
		return true, nil
	}
	p.goal, p.unread = p.service.changes.Head().Position.LSN, time.Time{}
	return p.goal <= read, nil
}

// nextDue is when the next heartbeat or mark is due, or the wait ends.
func (p *pursuit) nextDue() time.Time {
	next := p.beat.Add(p.heartbeat)
	if p.selecting != nil && p.selecting.marked() {
		if mark := p.marked.Add(p.markInterval()); mark.Before(next) {
			next = mark
		}
	}
	if end, ok := p.bounds.waitEnd(); ok && p.idle() && end.Before(next) {
		next = end
	}
	return next
}

// read returns the next block, or context.DeadlineExceeded when the next heartbeat or the end of the wait comes first.
func (p *pursuit) read(ctx context.Context) (*block.Block, error) {
	ctx, cancel := context.WithDeadline(ctx, p.nextDue())
	defer cancel()
	return p.service.changes.Read(ctx, p.next) //nolint:wrapcheck // it says what failed
}

// end tells those who set a limit or a wait where they are.
func (p *pursuit) end() error {
	if !p.bounds.announced() {
		return nil
	}
	ended := &loggerv1.Ended{
		Position: positionProto(p.sent), More: p.service.changes.Head().Position.LSN > p.sent.LSN,
		FirstLsn: uint64(p.service.changes.Ranges().First),
	}
	return p.stream.Send(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Ended{Ended: ended}}) //nolint:wrapcheck // it is the transport's
}

// send sends a block as it is stored, or what a set selects of it. The first one is cut when it begins before the position.
func (p *pursuit) send(ctx context.Context, b *block.Block) error {
	if b.LogID != p.sent.LogID {
		return changelog.ErrOtherLog
	}
	p.next = b.Number + 1
	if p.selecting != nil {
		return p.selecting.take(ctx, b, func(own *block.Block) error { return p.sendBlock(ctx, own, own.Data(), own.Transactions) })
	}
	if b.Through <= p.sent.LSN && !b.Open() {
		return nil // all that is in it ends at or before the position
	}
	data, transactions := b.Data(), b.Transactions
	if b.Previous < p.sent.LSN {
		var err error
		if data, transactions, err = trim(b, p.sent.LSN); err != nil {
			return err
		}
	}
	return p.sendBlock(ctx, b, data, transactions)
}

// sendBlock sends the data of a block, after the relations in it that are new to this stream.
func (p *pursuit) sendBlock(ctx context.Context, b *block.Block, data []byte, transactions uint32) error {
	for _, hash := range b.Relations {
		if err := p.sendRelation(ctx, hash); err != nil {
			return err
		}
	}
	ctx, span := tracer.Start(ctx, "logger.follow.block")
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.Int64("syncline.block", int64(b.Number)), attribute.Int("syncline.bytes", len(data)))
	}
	prefix := binary.AppendUvarint([]byte{blockTag}, uint64(len(data)))
	if err := p.stream.SendMsg(&rpc.Frame{Prefix: prefix, Data: data}); err != nil {
		return err //nolint:wrapcheck // it is the transport's
	}
	p.inside, p.marked = b.Open(), time.Now()
	if transactions > 0 || p.inside {
		p.bounds.sent(int64(transactions), time.Now())
	}
	// Through of the beginning of a large transaction is where the one before it ended, perhaps before the position.
	p.sent.LSN = max(p.sent.LSN, b.Through)
	p.service.followers.progress(p.entry, p.sent)
	p.service.meters.sent(ctx, len(data))
	return nil
}

// trim cuts a block that begins before the position, and counts the transactions that are left in it.
func trim(b *block.Block, after change.LSN) ([]byte, uint32, error) {
	data, err := block.Trim(b, after)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // it says what it cut
	}
	h, err := block.ParseHeader(data)
	return data, h.Transactions, err //nolint:wrapcheck // it says what it read
}

func (p *pursuit) sendRelation(ctx context.Context, hash change.RelationHash) error {
	if _, known := p.known[hash]; known {
		return nil
	}
	relation, err := p.relation(hash)
	if err != nil {
		return err
	}
	answer := &loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Relation{Relation: relationProto(hash, relation)}}
	if err := p.stream.Send(answer); err != nil {
		return err //nolint:wrapcheck // it is the transport's
	}
	p.known[hash] = struct{}{}
	return nil
}

// relation is a relation version of the log, or one that the set has made of it.
func (p *pursuit) relation(hash change.RelationHash) (*change.Relation, error) {
	if p.selecting != nil {
		if made := p.selecting.selecting.shapes.find(hash); made != nil {
			return made, nil
		}
	}
	return p.service.changes.Relation(hash) //nolint:wrapcheck // it says what failed
}

func relationProto(hash change.RelationHash, r *change.Relation) *changev1.Relation {
	answer := &changev1.Relation{Hash: hash[:], Oid: r.OID, Schema: r.Schema, Name: r.Name, Identity: string(r.Identity)}
	for _, c := range r.Columns {
		answer.Columns = append(answer.Columns, &changev1.Column{Name: c.Name, TypeOid: c.TypeOID, TypeModifier: c.TypeModifier, Key: c.Key})
	}
	return answer
}

func (p *pursuit) sendHeartbeat() error {
	head := p.service.changes.Head()
	beat := &loggerv1.Heartbeat{
		Head: positionProto(head.Position), Time: timestamppb.Now(),
		CurrentWalLsn: max(uint64(p.service.status.walLSN()), uint64(head.Position.LSN)),
	}
	if head.HasCommit {
		beat.LastCommitTime = proto.Int64(int64(head.LastCommitTime))
	}
	p.beat = time.Now()
	if err := p.stream.Send(&loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Heartbeat{Heartbeat: beat}}); err != nil {
		return err //nolint:wrapcheck // it is the transport's
	}
	return nil
}

// Reasons of errors about positions. Their metadata holds log_id, first_lsn and last_lsn of the log that is served, in the
// form in which PostgreSQL prints LSNs.
const (
	ReasonPositionTooOld = "POSITION_TOO_OLD"
	ReasonPositionAhead  = "POSITION_AHEAD"
	ReasonLogIDMismatch  = "LOG_ID_MISMATCH"
	ReasonNotReady       = "NOT_READY"
)

// positionError gives the change log's errors about a position their status.
func (s *Service) positionError(err error, at change.Position) error {
	if err == nil {
		return nil
	}
	ranges := s.changes.Ranges()
	var out *rpc.Error
	switch {
	case errors.Is(err, changelog.ErrOtherLog), errors.Is(err, changelog.ErrNoLog), errors.Is(err, changelog.ErrPurged) && ranges.LogID != at.LogID:
		out = rpc.Errorf(codes.OutOfRange, ReasonLogIDMismatch, "the change log is now %v, and %v is a position of another one: "+
			"continuity with it cannot be proved, so the replica has to be copied anew", ranges.LogID, at)
	case errors.Is(err, changelog.ErrTooOld), errors.Is(err, changelog.ErrPurged):
		out = rpc.Errorf(codes.OutOfRange, ReasonPositionTooOld, "%v is before the start of the change log, %v: transactions in between were purged, "+
			"so the replica has to be copied anew (and the log kept for longer, with --log-max-age and --log-max-bytes)", at, ranges.First)
	case errors.Is(err, changelog.ErrAhead):
		out = rpc.Errorf(codes.OutOfRange, ReasonPositionAhead, "%v is after the end of the change log, %v", at, ranges.Last)
	default:
		return err
	}
	return out.With("log_id", ranges.LogID.String()).With("first_lsn", ranges.First.String()).With("last_lsn", ranges.Last.String())
}
