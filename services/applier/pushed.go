package applier

import (
	"context"
	"regexp"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// pushPrefix begins the source of a replication whose source comes by itself; the name of its push there follows.
const pushPrefix = "push:"

// pushForm is that of such a source. No address fits it: a port is a number, and the name of a push begins with a letter.
var pushForm = regexp.MustCompile(`^push:[a-z][a-z0-9_-]{0,62}$`)

// The reasons of what is about pushes.
const (
	reasonNotAttached   = "PUSH_NOT_ATTACHED"
	reasonNotPushed     = "NOT_PUSHED"
	reasonOtherAttached = "PUSH_ATTACHED"
	reasonReplaced      = "PUSH_REPLACED"
	reasonManyPushes    = "TOO_MANY_PUSHES"
)

// pushOf is the push that a replication's source is; false for a source that is dialled.
func pushOf(spec *applierv1.ReplicationSpec) (name string, pushed bool) {
	if !pushForm.MatchString(spec.GetSource()) {
		return "", false
	}
	return strings.TrimPrefix(spec.GetSource(), pushPrefix), true
}

// checkPushed refuses, of a source that comes by itself, what is about how it is reached.
func checkPushed(p *problems, spec *applierv1.ReplicationSpec) {
	const text = "the source %s comes by itself: how it is reached its push says, at the source"
	if spec.GetInventory() != "" {
		p.add("spec.inventory", text, spec.GetSource())
	}
	if spec.GetToken() != "" {
		p.add("spec.token", text, spec.GetSource())
	}
	if spec.GetTls() != nil {
		p.add("spec.tls", text, spec.GetSource())
	}
	if spec.GetProxy() != "" {
		p.add("spec.proxy", text, spec.GetSource())
	}
}

// dialSource connects to the source of a replication, or takes the connection of the push that is attached for it.
func (c *Config) dialSource(ctx context.Context, replication string, spec *applierv1.ReplicationSpec) (*source, error) {
	push, pushed := pushOf(spec)
	if !pushed {
		return c.links.source(ctx, spec, c.Dial)
	}
	a := c.pushes.of(replication)
	if a == nil || a.push != push {
		return nil, notAttached(push, replication)
	}
	server, err := whoIs(ctx, a.conn, spec.GetSource())
	if err != nil {
		return nil, err
	}
	if id := server.GetServerId(); id != a.serverID {
		return nil, failed(reasonSourceChanged, "push %s says that it comes from server %s, and what answers is server %s", push, a.serverID, id)
	}
	if server.GetLoggerAddress() == "" || server.GetInventoryAddress() == "" {
		return nil, failed(reasonNotSyncline, "push %s comes from a server that serves %v, and a source has logger and inventory", push, server.GetRoles())
	}
	var conn grpc.ClientConnInterface = a.conn
	if spec.GetCompression() == applierv1.Compression_COMPRESSION_ZSTD {
		conn = rpc.Compressed(conn)
	}
	return &source{server: server, logger: conn, inventory: conn, set: usedSetOf(spec)}, nil
}

func notAttached(push, replication string) error {
	return rpc.Errorf(codes.Unavailable, reasonNotAttached, "push %s of the source is not attached: replication %s waits until it comes; `syncline push show %s` at the source tells what it is doing", push, replication, push).
		With("push", push)
}

// throughPush has what fails because the push is gone say so.
func throughPush(a *attachment) rpc.DialOption {
	explain := func(ctx context.Context, err error) error {
		if err == nil || a.ended.Err() == nil || ctx.Err() != nil || rpc.Reason(err) != "" {
			return err
		}
		if code := rpc.Code(err); code != codes.Unavailable && code != codes.Canceled && code != codes.Internal {
			return err
		}
		return notAttached(a.push, a.replication)
	}
	return rpc.WithDialOptions(
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return explain(ctx, invoke(ctx, method, request, answer, conn, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			if err != nil {
				return nil, explain(ctx, err)
			}
			return pushedStream{stream, func(err error) error { return explain(ctx, err) }}, nil
		}),
	)
}

type pushedStream struct {
	grpc.ClientStream
	explain func(error) error
}

func (s pushedStream) RecvMsg(m any) error { return s.explain(s.ClientStream.RecvMsg(m)) }
