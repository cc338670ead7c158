package applier

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// mostOnLink is how many users share one connection. A server takes more streams; but all that is read from one connection is read by one
// goroutine.
const mostOnLink = 64

// links are the connections to sources, shared by all that reach one in the same way, with the same credentials: a thousand replications
// would have as many connections of their own.
type links struct {
	mu   sync.Mutex
	open map[string]*link // the newest one of each way
}

// link is what leads to the services of one source.
type link struct {
	key                      string
	server                   *serverv1.Server // as it was when this was made
	first, logger, inventory *grpc.ClientConn // some may be the same
	users                    int
}

func newLinks() *links { return &links{open: map[string]*link{}} }

// linkKey is the same for replications that reach a source in the same way.
func linkKey(spec *applierv1.ReplicationSpec) string {
	way := &applierv1.ReplicationSpec{Source: spec.GetSource(), Inventory: spec.GetInventory(), Token: spec.GetToken(), Tls: spec.GetTls(), Proxy: spec.GetProxy()}
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(way)
	if err != nil {
		panic(err) // it came in a message
	}
	return string(key)
}

// take returns a link to a source that answers now, and what it says of itself. Whoever takes it gives it back by release.
func (l *links) take(ctx context.Context, spec *applierv1.ReplicationSpec, options []rpc.DialOption) (*link, *serverv1.Server, error) {
	key := linkKey(spec)
	if one := l.join(key); one != nil {
		server, err := whoIs(ctx, one.first, spec.GetSource())
		if err == nil && one.leadsTo(server) {
			return one, server, nil
		}
		// What is wrong may be the connection, or that it waits until it tries again.
		l.retire(one)
		l.release(one)
	}
	one, err := dialLink(ctx, spec, options)
	if err != nil {
		return nil, nil, err
	}
	one.key, one.users = key, 1
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[key] = one // one that is full, or was made at the same moment, lasts as long as its users
	return one, one.server, nil
}

func (l *links) join(key string) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.open[key]
	if one == nil || one.users >= mostOnLink {
		return nil
	}
	one.users++
	return one
}

// retire has nobody else take a link.
func (l *links) retire(one *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[one.key] == one {
		delete(l.open, one.key)
	}
}

func (l *links) release(one *link) {
	l.mu.Lock()
	one.users--
	last := one.users == 0
	if last && l.open[one.key] == one {
		delete(l.open, one.key)
	}
	l.mu.Unlock()
	if last {
		one.close()
	}
}

// leadsTo tells whether the services of the server are still where they were.
func (k *link) leadsTo(server *serverv1.Server) bool {
	return server.GetLoggerAddress() == k.server.GetLoggerAddress() && server.GetInventoryAddress() == k.server.GetInventoryAddress()
}

// dialLink asks the service at spec.source who it is and where the primary's other services are, and connects to them.
func dialLink(ctx context.Context, spec *applierv1.ReplicationSpec, options []rpc.DialOption) (_ *link, err error) {
	own, err := connectionOptions(spec)
	if err != nil {
		return nil, err
	}
	options = append(slices.Clone(options), own...)
	k := &link{}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if k.first, err = rpc.Dial(spec.GetSource(), options...); err != nil {
		return nil, failed(reasonNoSource, "source: %w", err)
	}
	if k.server, err = whoIs(ctx, k.first, spec.GetSource()); err != nil {
		return nil, err
	}
	inventory := spec.GetInventory()
	if inventory == "" {
		inventory = k.server.GetInventoryAddress()
	}
	if k.server.GetLoggerAddress() == "" || inventory == "" {
		return nil, failed(reasonNotSyncline, "the Syncline server at %s is no primary: it names no logger and inventory (it serves %v); give the address of a primary", spec.GetSource(), k.server.GetRoles())
	}
	dialled := map[string]*grpc.ClientConn{spec.GetSource(): k.first}
	dial := func(address string) (*grpc.ClientConn, error) {
		address = reachable(address, spec.GetSource())
		if conn := dialled[address]; conn != nil {
			return conn, nil
		}
		conn, err := rpc.Dial(address, options...)
		if err == nil {
			dialled[address] = conn
		}
		return conn, err //nolint:wrapcheck // the caller says what it is
	}
	if k.logger, err = dial(k.server.GetLoggerAddress()); err != nil {
		return nil, failed(reasonNoSource, "logger of the source: %w", err)
	}
	if k.inventory, err = dial(inventory); err != nil {
		return nil, failed(reasonNoSource, "inventory of the source: %w", err)
	}
	return k, nil
}

func (k *link) close() {
	for _, conn := range []*grpc.ClientConn{k.first, k.logger, k.inventory} {
		if conn != nil {
			_ = conn.Close() // one that is closed already says so
		}
	}
}

// source makes a replication's source of a link.
func (l *links) source(ctx context.Context, spec *applierv1.ReplicationSpec, options []rpc.DialOption) (*source, error) {
	one, server, err := l.take(ctx, spec, options)
	if err != nil {
		return nil, err
	}
	s := &source{server: server, logger: one.logger, inventory: one.inventory, set: usedSetOf(spec), release: sync.OnceFunc(func() { l.release(one) })}
	if spec.GetCompression() == applierv1.Compression_COMPRESSION_ZSTD {
		s.logger, s.inventory = rpc.Compressed(s.logger), rpc.Compressed(s.inventory)
	}
	return s, nil
}
