package applier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/tunnel"
)

// FaultPushAttached is where a test may kill the process while a push is attached and nothing is read through it yet.
const FaultPushAttached = "push/target-attached"

// maxAttached bounds the pushes that are attached at the same time.
const maxAttached = 1000

// errReplaced ends a tunnel whose push has come again.
var errReplaced = errors.New("the push has come again by another connection")

// attachment is a push that is attached for a replication.
type attachment struct {
	replication, push, serverID string

	conn    *grpc.ClientConn // through the tunnel
	ended   context.Context  //nolint:containedctx // done when the push is gone
	replace context.CancelCauseFunc
}

// pushes are those that are attached, by their replications.
type pushes struct {
	mu       sync.Mutex
	attached map[string]*attachment
}

// of returns nil for none.
func (p *pushes) of(replication string) *attachment {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attached[replication]
}

// add takes the place of the same push, whose former connection may be broken without anybody having noticed; that of another one only
// once it is gone, which its connection's pings find out.
func (p *pushes) add(a *attachment) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch before := p.attached[a.replication]; {
	case before == nil && len(p.attached) >= maxAttached:
		return rpc.Errorf(codes.ResourceExhausted, reasonManyPushes, "%d pushes are attached to this server, and it takes no more", maxAttached)
	case before == nil:
	case before.push != a.push || before.serverID != a.serverID:
		return rpc.Errorf(codes.Aborted, reasonOtherAttached, "replication %s is attached to push %s of server %s; it takes one at a time", a.replication, before.push, before.serverID)
	default:
		before.replace(errReplaced)
	}
	p.attached[a.replication] = a
	return nil
}

func (p *pushes) remove(a *attachment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attached[a.replication] == a {
		delete(p.attached, a.replication)
	}
}

// Carry attaches a push: for as long as it lasts, its replication reaches its source through it.
func (s *Service) Carry(stream grpc.BidiStreamingServer[tunnelv1.CarryRequest, tunnelv1.CarryResponse]) error {
	if err := s.waitReady(stream.Context()); err != nil {
		return err
	}
	open, err := firstRequest(stream)
	if err != nil {
		return err
	}
	ctx, replace := context.WithCancelCause(stream.Context())
	defer replace(nil)
	a, pipe, err := s.newAttachment(ctx, replace, open)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	defer func() { _ = pipe.Close() }() // first, so that calls end because the push is gone
	if err := s.config.pushes.add(a); err != nil {
		return err
	}
	defer s.config.pushes.remove(a)
	defer replace(nil) // before it is removed: whoever holds the connection is told why it ends
	r, err := s.pushedRunner(a)
	if err != nil {
		return err
	}
	opened := &tunnelv1.Opened{ServerId: s.config.ServerID, Exists: r != nil}
	if err := stream.Send(&tunnelv1.CarryResponse{Content: &tunnelv1.CarryResponse_Opened{Opened: opened}}); err != nil {
		return fmt.Errorf("open tunnel: %w", err)
	}
	fault.Point(FaultPushAttached)
	a.conn.Connect() // the source waits for the handshake, also while the replication is stopped
	if r != nil {
		r.pushAttached(a)
	}
	defer s.detached(a)
	err = tunnel.Carry(ctx, pieces(stream), pipe, nil)
	switch {
	case errors.Is(err, errReplaced):
		return rpc.Errorf(codes.Aborted, reasonReplaced, "push %s has come again for replication %s by another connection, which took the place of this one", a.push, a.replication)
	case errors.Is(err, tunnel.ErrPiece):
		return rpc.Invalid("data", "%v", err)
	case ctx.Err() != nil && !errors.Is(err, errTunnelBroke):
		return ctx.Err()
	}
	return rpc.Errorf(codes.Unavailable, reasonNotAttached, "the connection through push %s ended: %w", a.push, err)
}

// firstRequest waits for what opens a tunnel, for as long as for any first word.
func firstRequest(stream grpc.BidiStreamingServer[tunnelv1.CarryRequest, tunnelv1.CarryResponse]) (*tunnelv1.Open, error) {
	type received struct {
		request *tunnelv1.CarryRequest
		err     error
	}
	first := make(chan received, 1)
	go func() {
		request, err := stream.Recv()
		first <- received{request, err}
	}()
	select {
	case <-time.After(handshakeTimeout):
		return nil, rpc.Invalid("open", "nothing came within %s", handshakeTimeout)
	case <-stream.Context().Done():
		return nil, stream.Context().Err()
	case got := <-first:
		if got.err != nil {
			return nil, fmt.Errorf("open tunnel: %w", got.err)
		}
		open := got.request.GetOpen()
		p := &problems{}
		if len(open.GetReplication()) > maxNameBytes || !nameForm.MatchString(open.GetReplication()) {
			p.add("open.replication", "%.100q is no name of a replication", open.GetReplication())
		}
		if !pushForm.MatchString(pushPrefix + open.GetPush()) {
			p.add("open.push", "%.100q is no name of a push", open.GetPush())
		}
		if id := open.GetServerId(); id == "" || len(id) > maxNameBytes {
			p.add("open.server_id", "%.100q is no server id", id)
		}
		return open, p.result()
	}
}

// newAttachment makes the two ends of the connection in the tunnel. Nothing is sent before it is used.
func (s *Service) newAttachment(ctx context.Context, replace context.CancelCauseFunc, open *tunnelv1.Open) (*attachment, net.Conn, error) {
	mine, pipe := net.Pipe()
	a := &attachment{replication: open.GetReplication(), push: open.GetPush(), serverID: open.GetServerId(), ended: ctx, replace: replace}
	var taken atomic.Bool
	dial := func(context.Context, string) (net.Conn, error) {
		if taken.Swap(true) {
			replace(errTunnelBroke) // it cannot be made again
			return nil, notAttached(a.push, a.replication)
		}
		return mine, nil
	}
	conn, err := rpc.Dial("push.invalid:7400", rpc.WithDialer(dial), rpc.WithDialOptions(grpc.WithIdleTimeout(0)), throughPush(a), refusals())
	if err != nil {
		return nil, nil, err
	}
	a.conn = conn
	return a, pipe, nil
}

var errTunnelBroke = errors.New("the connection in the tunnel broke")

// pushedRunner is the replication that a push is for, nil if there is none yet. One of another source is refused.
func (s *Service) pushedRunner(a *attachment) (*runner, error) {
	s.mu.Lock()
	r := s.runners[a.replication]
	s.mu.Unlock()
	if r == nil {
		return nil, nil //nolint:nilnil // the push creates it
	}
	stored := r.snapshot()
	if push, pushed := pushOf(stored.spec); !pushed || push != a.push {
		return nil, failed(reasonNotPushed, "replication %s of this server has the source %s, and not %s%s; push under another name (--replication), or delete that one here", a.replication, stored.spec.GetSource(), pushPrefix, a.push)
	}
	if stored.sourceServerID != a.serverID {
		return nil, failed(reasonSourceChanged, "replication %s of this server is pushed by server %s, and this push comes from server %s: its rows are not a continuation of what was applied; if it has taken that one's place, delete the replication here and push it again",
			a.replication, stored.sourceServerID, a.serverID)
	}
	return r, nil
}

func pieces(stream grpc.BidiStreamingServer[tunnelv1.CarryRequest, tunnelv1.CarryResponse]) tunnel.Stream {
	return tunnel.Stream{
		Send: func(piece []byte) error {
			return stream.Send(&tunnelv1.CarryResponse{Content: &tunnelv1.CarryResponse_Data{Data: piece}})
		},
		Recv: func() ([]byte, error) {
			request, err := stream.Recv()
			return request.GetData(), err
		},
	}
}

// pushAttached has a replication that waits for its push try again at once.
func (r *runner) pushAttached(a *attachment) {
	r.log.Info("push is attached", "push", a.push, "server", a.serverID)
	r.status.update(func(s *status) {
		s.tell(&event{kind: kindPushAttached, text: "push " + a.push + " of server " + a.serverID + " is attached"})
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// detached tells the replication, which the push may have created meanwhile, that it is gone; not when it has come again already.
func (s *Service) detached(a *attachment) {
	if r, err := s.pushedRunner(a); err == nil && r != nil && s.config.pushes.of(a.replication) == a {
		r.pushDetached(a)
	}
}

func (r *runner) pushDetached(a *attachment) {
	r.log.Info("push is not attached any more", "push", a.push)
	r.status.update(func(s *status) {
		s.tell(&event{kind: kindPushDetached, side: sideRemote, text: "push " + a.push + " is not attached any more"})
	})
}
