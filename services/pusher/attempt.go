package pusher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/tunnel"
)

// The places at which a test may kill the process.
const (
	FaultStored   = "push/stored"   // a push is stored, nothing runs for it
	FaultAttached = "push/attached" // the target has attached it, no replication is asked for
	FaultCreated  = "push/created"  // the target has created the replication, nothing here says so
	FaultServing  = "push/serving"  // the target has begun to tell of its replication
	FaultRemoved  = "push/removed"  // a push is deleted, the change log still keeps what its target has not
)

const (
	// handshakeTimeout bounds the way to the target and its first answer.
	handshakeTimeout = 15 * time.Second
	// watchInterval is how often the target tells of its replication, at least.
	watchInterval = 2 * time.Second
	// createTimeout bounds how long the target may take to look at both databases and to create its replication.
	createTimeout = 10 * time.Minute
	// drain is how long what the target asks may take to end when a push is stopped.
	drain = 2 * time.Second
)

// attempt is one connection, from its beginning to its end. It waits for all that it has started.
func (p *push) attempt(ctx context.Context) error {
	r := p.snapshot()
	conn, err := p.dial(r)
	if err != nil {
		return err
	}
	defer conn.Close()
	carrying, end := context.WithCancelCause(context.WithoutCancel(ctx)) // ctx ends what is served first
	defer end(nil)
	ahead := context.AfterFunc(ctx, func() { end(ctx.Err()) })
	defer ahead()
	stream, opened, err := p.open(carrying, end, conn, r)
	if err != nil {
		return err
	}
	if !ahead() {
		return ctx.Err()
	}
	if id := opened.GetServerId(); r.targetServerID != "" && id != r.targetServerID {
		return failed(reasonOtherOne, "the target at %s is now another server (%s instead of %s); point the push to the right one, or delete it and push anew", r.spec.GetTarget(), id, r.targetServerID)
	}
	p.mu.Lock()
	p.targetSeen = opened.GetServerId()
	p.mu.Unlock()
	fault.Point(FaultAttached)
	return p.through(ctx, carrying, end, stream, func(ctx context.Context) error {
		client := applierv1.NewApplierServiceClient(conn)
		if err := p.ensure(ctx, client, opened); err != nil {
			return err
		}
		return p.watch(ctx, client)
	})
}

func (p *push) dial(r *stored) (*grpc.ClientConn, error) {
	own, err := wayOf(r.spec).Options()
	if err != nil {
		return nil, err
	}
	conn, err := rpc.Dial(r.spec.GetTarget(), append(slices.Clone(p.service.config.Dial), append(own, rpc.WithFlags("target-", "`syncline primary`"))...)...)
	if err != nil {
		return nil, failed(reasonNoTarget, "target: %w", err)
	}
	return conn, nil
}

type carryStream = grpc.BidiStreamingClient[tunnelv1.CarryRequest, tunnelv1.CarryResponse]

// open attaches the push to its replication.
func (p *push) open(ctx context.Context, end context.CancelCauseFunc, conn *grpc.ClientConn, r *stored) (carryStream, *tunnelv1.Opened, error) {
	late := time.AfterFunc(handshakeTimeout, func() { end(context.DeadlineExceeded) })
	defer late.Stop()
	stream, err := tunnelv1.NewTunnelServiceClient(conn).Carry(ctx)
	if err != nil {
		return nil, nil, because(ctx, err)
	}
	open := &tunnelv1.Open{Replication: replicationName(r.name, r.spec), Push: r.name, ServerId: p.service.config.ServerID}
	if err := stream.Send(&tunnelv1.CarryRequest{Content: &tunnelv1.CarryRequest_Open{Open: open}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, because(ctx, err)
	}
	first, err := stream.Recv() // it has the reason, too, if the request could not be sent
	if err != nil {
		return nil, nil, because(ctx, err)
	}
	if id := first.GetOpened().GetServerId(); id == "" || len(id) > maxNameBytes {
		return nil, nil, failed(reasonNotTarget, "what answers at %s is no Syncline server that takes pushes", r.spec.GetTarget())
	}
	return stream, first.GetOpened(), nil
}

// because prefers the reason for which a context was ended to what came of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && rpc.Reason(err) == "" {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return rpc.Errorf(codes.Unavailable, reasonNoTarget, "the target has ended the connection")
	}
	return err
}

// through serves the target over the stream while work goes on, and ends both when either does. The first failure counts.
func (p *push) through(ctx, carrying context.Context, end context.CancelCauseFunc, stream carryStream, work func(context.Context) error) error {
	mine, pipe := net.Pipe()
	server := rpc.NewServer(rpc.WithTable(p.service.config.Table), rpc.WithLogger(p.log), rpc.WithDrain(drain),
		rpc.WithGuard(bound{principalOf(p.name, p.snapshot().spec), p.log}))
	p.service.config.Serve(server)
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	running.Go(func() {
		stop(because(carrying, tunnel.Carry(carrying, pieces(carrying, stream), pipe, &p.sent)))
	})
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		_ = server.Run(working, tunnel.NewListener(mine)) // it ends when it is told to
	}()
	if err := work(working); err != nil {
		stop(err)
	}
	err := context.Cause(working)
	<-serving // the target is told that this source stops, as long as something is carried
	end(context.Canceled)
	running.Wait()
	return err
}

func pieces(ctx context.Context, stream carryStream) tunnel.Stream {
	return tunnel.Stream{
		Send: func(piece []byte) error {
			err := stream.Send(&tunnelv1.CarryRequest{Content: &tunnelv1.CarryRequest_Data{Data: piece}})
			if errors.Is(err, io.EOF) { // the stream is broken, and Recv says why
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return err
		},
		Recv: func() ([]byte, error) {
			answer, err := stream.Recv()
			return answer.GetData(), err
		},
	}
}

// ensure has the target create its replication, unless it is there. One that was there before and is not any more was deleted by
// somebody there, who has to be asked first.
func (p *push) ensure(ctx context.Context, client applierv1.ApplierServiceClient, opened *tunnelv1.Opened) error {
	r := p.snapshot()
	if !opened.GetExists() {
		if r.made {
			return gone(replicationName(r.name, r.spec), r)
		}
		if err := p.create(ctx, client, r); err != nil {
			return err
		}
		fault.Point(FaultCreated)
	}
	if r.made {
		return nil
	}
	_, err := p.write(func() (*stored, error) { return p.service.store.setMade(ctx, r.name, opened.GetServerId()) })
	return err
}

// create has the target create its replication. One that is there after all is this push's own if it says so: the answer to an earlier call
// did not come through.
func (p *push) create(ctx context.Context, client applierv1.ApplierServiceClient, r *stored) error {
	limited, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	replication := replicationName(r.name, r.spec)
	_, err := client.CreateReplication(limited, &applierv1.CreateReplicationRequest{Name: replication, Spec: replicationSpec(r.name, r.spec)})
	if rpc.Reason(err) == reasonThere {
		there, failed := client.GetReplication(limited, &applierv1.GetReplicationRequest{Name: replication})
		if failed == nil && p.service.owns(there.GetReplication(), r.name) {
			return nil
		}
	}
	if limited.Err() != nil && ctx.Err() == nil {
		return rpc.Errorf(codes.Unavailable, reasonNoTarget, "the target has not created replication %s within %s", replication, createTimeout)
	}
	if err != nil {
		return fmt.Errorf("create replication %s at the target: %w", replication, err)
	}
	return nil
}

// owns tells whether a target's replication is that of a push of this node.
func (s *Service) owns(there *applierv1.Replication, push string) bool {
	return there.GetSpec().GetSource() == followerPrefix+push && there.GetSourceServerId() == s.config.ServerID
}

// sameChoice refuses a replication that takes something else than the push carries: a former push of the same name has created it.
func sameChoice(r *stored, there *applierv1.Replication) error {
	spec := there.GetSpec()
	if spec.GetSet() == r.spec.GetSet() && maps.Equal(spec.GetParameters(), r.spec.GetParameters()) {
		return nil
	}
	name := replicationName(r.name, r.spec)
	return failed(reasonDiffers, "replication %s of the target takes %s, and this push carries %s: it was made for another push of this name; delete it there and run `syncline push start %s`, or delete this push and push under another name",
		name, choice(spec.GetSet(), spec.GetParameters()), choice(r.spec.GetSet(), r.spec.GetParameters()), r.name)
}

func choice(set string, parameters map[string]string) string {
	if set == "" {
		return "the whole database"
	}
	text := "set " + set
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		text += " " + name + "=" + parameters[name]
	}
	return text
}

func gone(replication string, r *stored) error {
	return failed(reasonGone, "replication %s was deleted at the target at %s; if it shall be there again, `syncline push start %s` creates it anew, else delete the push", replication, r.spec.GetTarget(), r.name)
}

// watch takes over what the target tells of its replication, until the call ends.
func (p *push) watch(ctx context.Context, client applierv1.ApplierServiceClient) error {
	r := p.snapshot()
	replication := replicationName(r.name, r.spec)
	stream, err := client.WatchReplication(ctx, &applierv1.WatchReplicationRequest{Name: replication, Interval: durationpb.New(watchInterval)})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		switch {
		case rpc.Reason(err) == reasonNoReplication:
			return gone(replication, r)
		case err != nil:
			return because(ctx, err)
		}
		if err := sameChoice(r, answer.GetReplication()); err != nil {
			return err
		}
		p.heardOf(answer.GetReplication())
		fault.Point(FaultServing)
	}
}
