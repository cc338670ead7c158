package inventory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// keeperCheck is how often a keeper session that says nothing is asked whether it lives, and how long it may take to answer.
// PostgreSQL ends a keeper that nobody asked for keeperChecks times as long, for the machine that asks may be gone.
const (
	keeperCheck  = 15 * time.Second
	keeperChecks = 4
)

// lease is an open snapshot.
type lease struct {
	id       string
	position change.Position
	exported string // what other sessions import
	seen     string // pg_current_snapshot() in the keeper: whoever imports must see the same
	created  time.Time
	ttl      time.Duration
	client   string // address of who opened it
	pid      uint32 // of the keeper's session

	wake chan struct{} // the lease was renewed or is to be closed
	gone chan struct{} // closed when everything that the lease held is free

	// Guarded by leases.mu.
	expires time.Time
	closing string // why it ends; empty while it is open
	dumps   map[*context.CancelCauseFunc]struct{}
	reads   int64 // begun so far
	drained sync.WaitGroup
}

// leases are the open snapshots and those being opened, of which there is a bounded number together.
type leases struct {
	most    int
	check   time.Duration // keeperCheck
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	running bool
	places  int // taken
	opening map[*context.CancelCauseFunc]struct{}
	open    map[string]*lease
	openers sync.WaitGroup
	holders sync.WaitGroup
}

func newLeases(most int, log *slog.Logger, metrics *metrics) *leases {
	return &leases{
		most: most, check: keeperCheck, log: log, metrics: metrics,
		opening: make(map[*context.CancelCauseFunc]struct{}), open: make(map[string]*lease),
	}
}

// begin takes a place for a snapshot that is being opened; cancel is called when the service stops. done says that the
// opening has ended, and gives the place back unless the snapshot was opened: then hold does.
func (r *leases) begin(cancel context.CancelCauseFunc) (done func(opened bool), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.running:
		return nil, ErrStopping
	case r.places >= r.most:
		return nil, fmt.Errorf("open snapshot: %w: %d are open, as many as allowed: close one, or let one expire (see ListSnapshots)", ErrTooManySnapshots, r.places)
	}
	r.places++
	r.openers.Add(1)
	r.opening[&cancel] = struct{}{}
	return func(opened bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.opening, &cancel)
		if !opened {
			r.places--
		}
		r.openers.Done()
	}, nil
}

// start lets snapshots be opened.
func (r *leases) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = true
}

// stop ends the openings, then the open snapshots, and returns when everything is free. None is opened afterwards.
func (r *leases) stop() {
	r.mu.Lock()
	r.running = false
	for cancel := range r.opening {
		(*cancel)(ErrStopping)
	}
	r.mu.Unlock()
	r.openers.Wait()
	r.mu.Lock()
	for _, l := range r.open {
		l.end("the service stopped")
	}
	r.mu.Unlock()
	r.holders.Wait()
}

// add makes an opened snapshot known and holds it from now on. The caller has a place for it.
func (r *leases) add(l *lease, keeper *pgconn.PgConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.created = time.Now()
	l.expires = l.created.Add(l.ttl)
	r.open[l.id] = l
	r.metrics.open.Add(context.Background(), 1)
	r.holders.Go(func() { r.hold(l, keeper) })
}

// hold owns an open snapshot until it expires, is closed, or loses its keeper. It returns when everything is free.
func (r *leases) hold(l *lease, keeper *pgconn.PgConn) {
	defer close(l.gone)
	watching, stop := context.WithCancel(context.Background())
	defer stop()
	died := make(chan struct{})
	var death error
	go func() {
		defer close(died)
		death = watch(watching, keeper, r.check)
	}()

	why := r.await(l, died)
	r.mu.Lock()
	delete(r.open, l.id)
	l.end(why)
	for cancel := range l.dumps {
		(*cancel)(fmt.Errorf("%w: %s", ErrSnapshotGone, why))
	}
	r.mu.Unlock()
	l.drained.Wait()
	stop()
	<-died
	closeSession(keeper)

	r.mu.Lock()
	r.places--
	r.mu.Unlock()
	r.metrics.open.Add(context.Background(), -1)
	log := r.log.With("snapshot", l.id, "position", l.position.String(), "why", why)
	if death != nil {
		log.Warn("snapshot lost", "error", death)
		return
	}
	log.Info("snapshot ended")
}

// await returns why the lease ends.
func (r *leases) await(l *lease, died <-chan struct{}) string {
	for {
		r.mu.Lock()
		closing, left := l.closing, time.Until(l.expires)
		r.mu.Unlock()
		switch {
		case closing != "":
			return closing
		case left <= 0:
			return "its lease expired"
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-l.wake:
		case <-died:
			timer.Stop()
			return "its session in PostgreSQL ended"
		}
		timer.Stop()
	}
}

// watch returns when the keeper's session has died, with the reason, or with nil when ctx ends.
func watch(ctx context.Context, keeper *pgconn.PgConn, check time.Duration) error {
	// Nothing in this session reads a table.
	if err := ask(ctx, keeper, check, fmt.Sprintf("SET idle_in_transaction_session_timeout = %d", (keeperChecks*check).Milliseconds())); err != nil {
		return err
	}
	for {
		waiting, cancel := context.WithTimeout(ctx, check)
		err := keeper.WaitForNotification(waiting)
		silent := waiting.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the session was to end
		case err == nil:
			continue
		case !silent:
			return err
		}
		if err := ask(ctx, keeper, check, "SELECT 1"); err != nil {
			return err
		}
	}
}

// ask runs a statement in the keeper. Its error is nil when ctx ends.
func ask(ctx context.Context, keeper *pgconn.PgConn, patience time.Duration, sql string) error {
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := value(asking, keeper, sql); err != nil && ctx.Err() == nil {
		return fmt.Errorf("ask whether the snapshot's session lives: %w", err)
	}
	return nil
}

// find returns an open snapshot. The caller holds r.mu.
func (r *leases) find(id string) (*lease, error) {
	l := r.open[id]
	if l == nil || l.closing != "" || time.Until(l.expires) <= 0 {
		return nil, fmt.Errorf("%w: snapshot %q has expired, was closed, or was not opened at this service: open a new one", ErrSnapshotGone, id)
	}
	return l, nil
}

// use registers a dump: cancel is called with an ErrSnapshotGone when the snapshot ends. The snapshot stays until done.
func (r *leases) use(id string, cancel context.CancelCauseFunc) (l *lease, done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, err = r.find(id); err != nil {
		return nil, nil, err
	}
	l.dumps[&cancel] = struct{}{}
	l.reads++
	l.drained.Add(1)
	return l, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(l.dumps, &cancel)
		l.drained.Done()
	}, nil
}

// renew lets a lease live for ttl from now, or for its own when ttl is 0.
func (r *leases) renew(id string, ttl time.Duration) (*inventoryv1.Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, err := r.find(id)
	if err != nil {
		return nil, err
	}
	if ttl == 0 {
		ttl = l.ttl
	}
	l.expires = time.Now().Add(ttl)
	l.notify()
	return l.proto(), nil
}

// close ends a snapshot and waits until everything is free.
func (r *leases) close(ctx context.Context, id string) error {
	r.mu.Lock()
	l, err := r.find(id)
	if err == nil {
		l.end("it was closed")
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-l.gone:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// list returns the open snapshots, oldest first.
func (r *leases) list() []*inventoryv1.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*lease, 0, len(r.open))
	for _, l := range r.open {
		if l.closing == "" {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b *lease) int { return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id)) })
	list := make([]*inventoryv1.Snapshot, len(all))
	for i, l := range all {
		list[i] = l.proto()
	}
	return list
}

// snapshot describes one that was just opened.
func (r *leases) snapshot(l *lease) *inventoryv1.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return l.proto()
}

// end has the lease end. The caller holds leases.mu.
func (l *lease) end(why string) {
	if l.closing == "" {
		l.closing = why
	}
	l.notify()
}

func (l *lease) notify() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake already
	}
}

// proto describes the lease. The caller holds leases.mu.
func (l *lease) proto() *inventoryv1.Snapshot {
	return &inventoryv1.Snapshot{
		SnapshotId:  l.id,
		Position:    &changev1.Position{LogId: l.position.LogID.String(), Lsn: uint64(l.position.LSN)},
		ExpireTime:  timestamppb.New(l.expires),
		CreateTime:  timestamppb.New(l.created),
		ActiveDumps: int32(len(l.dumps)),
		Ttl:         durationpb.New(l.ttl),
		Client:      l.client,
		SessionPid:  l.pid,
		Reads:       l.reads,
	}
}
