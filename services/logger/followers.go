package logger

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc/codes"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Reasons of errors about followers.
const (
	ReasonTooManyFollowers  = "TOO_MANY_FOLLOWERS"
	ReasonFollowerReplaced  = "FOLLOWER_REPLACED"
	ReasonFollowerUnknown   = "FOLLOWER_UNKNOWN"
	ReasonFollowerConnected = "FOLLOWER_CONNECTED"
)

// follower is someone reading the stream, or someone registered who does not read now.
type follower struct {
	name    string // empty for an anonymous one
	address string
	cancel  context.CancelCauseFunc // ends its stream; nil when it is not connected
	sent    change.Position
	applied change.Position // zero until it has reported
	contact time.Time
	since   time.Time // when it connected
	speed   speed     // of applied, else of sent
	unsaved bool      // applied is newer than the table's row
}

// followers knows who follows. What registered followers have applied is kept in the table syncline.followers and written
// every few seconds: after a crash it may be a little older than it was, never newer.
type followers struct {
	max int

	mu       sync.Mutex
	named    map[string]*follower
	all      map[*follower]struct{} // connected ones
	loaded   bool
	patience time.Duration // how long one that is not connected counts after it was last heard of
}

func newFollowers(limit int) *followers {
	return &followers{max: limit, named: make(map[string]*follower), all: make(map[*follower]struct{})}
}

// connect adds a stream. Another stream of the same name ends: a follower that comes back after a network break must not be
// kept out by its own old stream.
func (r *followers) connect(name, address string, from change.Position, cancel context.CancelCauseFunc) (*follower, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var f *follower
	if name != "" {
		f = r.named[name]
	}
	if f != nil && f.cancel != nil {
		f.cancel(rpc.Errorf(codes.Aborted, ReasonFollowerReplaced, "follower %s has connected again from %s; two followers need two names, and a replica whose PostgreSQL was copied with all its files needs an id of its own (`syncline server reset-id`)", name, address))
		delete(r.all, f)
		// The old stream's handler still holds the old value: the new one gets its own.
		f = &follower{name: name, applied: f.applied, unsaved: f.unsaved}
	}
	if len(r.all) >= r.max {
		return nil, rpc.Errorf(codes.ResourceExhausted, ReasonTooManyFollowers, "%d followers are connected, which is the limit: raise --max-followers", r.max)
	}
	if f == nil {
		f = &follower{name: name}
	}
	f.address, f.cancel, f.sent, f.contact = address, cancel, from, time.Now()
	f.since, f.speed = f.contact, speed{}
	r.all[f] = struct{}{}
	if name != "" {
		r.named[name] = f
	}
	return f, nil
}

// disconnect removes a stream. A registered follower stays known.
func (r *followers) disconnect(f *follower) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, f)
	f.cancel = nil
	if r.named[f.name] == f && f.applied.LSN == 0 {
		delete(r.named, f.name)
	}
}

// progress notes what was sent.
func (r *followers) progress(f *follower, sent change.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.sent, f.contact = sent, time.Now()
}

// reportApplied notes what a follower has durably applied; from then on it is registered.
func (r *followers) reportApplied(name string, position change.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.named[name]
	if f == nil {
		f = &follower{name: name}
		r.named[name] = f
	}
	f.unsaved = f.unsaved || f.applied != position
	f.applied, f.contact = position, time.Now()
}

func (r *followers) connected() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// positionProto returns nil for no position.
func positionProto(p change.Position) *changev1.Position {
	if p.LSN == 0 {
		return nil
	}
	return &changev1.Position{LogId: p.LogID.String(), Lsn: uint64(p.LSN)}
}

// forget removes a registered follower that is not connected.
func (r *followers) forget(ctx context.Context, pool *pgxpool.Pool, name string) error {
	f, err := r.disconnected(name)
	if err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, "DELETE FROM syncline.followers WHERE name = $1", name); err != nil {
		return fmt.Errorf("forget follower %s: %w", name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.named[name] == f && f.cancel == nil {
		delete(r.named, name)
	}
	return nil
}

func (r *followers) disconnected(name string) (*follower, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.named[name]
	switch {
	case f == nil:
		return nil, rpc.Errorf(codes.NotFound, ReasonFollowerUnknown, "there is no follower %q", name)
	case f.cancel != nil:
		return nil, rpc.Errorf(codes.FailedPrecondition, ReasonFollowerConnected, "follower %s is connected from %s: stop it first", name, f.address)
	}
	return f, nil
}

// loadOnce reads the registered followers once. What was reported meanwhile is newer and stays.
func (r *followers) loadOnce(ctx context.Context, q querier) error {
	if r.known() {
		return nil
	}
	rows, err := q.Query(ctx, "SELECT name, log_id, (lsn - '0/0'::pg_lsn)::numeric::text, reported FROM syncline.followers")
	if err != nil {
		return fmt.Errorf("read followers: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*follower, error) {
		f := &follower{}
		var id []byte
		var lsn string
		if err := row.Scan(&f.name, &id, &lsn, &f.contact); err != nil {
			return nil, err
		}
		copy(f.applied.LogID[:], id)
		_, err := fmt.Sscan(lsn, (*uint64)(&f.applied.LSN))
		return f, err
	})
	if err != nil {
		return fmt.Errorf("read followers: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range list {
		if known := r.named[f.name]; known == nil {
			r.named[f.name] = f
		} else if known.applied.LSN == 0 {
			known.applied = f.applied
		}
	}
	r.loaded = true
	return nil
}

// save writes what changed since the last call.
func (r *followers) save(ctx context.Context, pool *pgxpool.Pool) error {
	r.mu.Lock()
	var changed []follower
	for _, f := range r.named {
		if f.unsaved {
			changed = append(changed, *f)
			f.unsaved = false
		}
	}
	r.mu.Unlock()
	if err := r.loadOnce(ctx, pool); err != nil {
		r.unsave(changed)
		return err
	}
	if len(changed) == 0 {
		return nil
	}
	var batch pgx.Batch
	for _, f := range changed {
		batch.Queue(`INSERT INTO syncline.followers (name, log_id, lsn, reported) VALUES ($1, $2, $3::text::pg_lsn, $4)
			ON CONFLICT (name) DO UPDATE SET log_id = excluded.log_id, lsn = excluded.lsn, reported = excluded.reported`,
			f.name, f.applied.LogID[:], f.applied.LSN.String(), f.contact)
	}
	if err := pool.SendBatch(ctx, &batch).Close(); err != nil {
		r.unsave(changed)
		return fmt.Errorf("save followers: %w", err)
	}
	return nil
}

// unsave notes that followers still have to be saved.
func (r *followers) unsave(list []follower) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range list {
		if known := r.named[f.name]; known != nil {
			known.unsaved = true
		}
	}
}
