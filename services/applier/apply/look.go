package apply

import (
	"context"
	"maps"
	"reflect"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// The target's tables may be altered while the engine runs. It looks at a table whenever rows of another shape begin to come
// for it, because whoever alters a table on the source alters it on the replica just before. Now and then it looks at all of
// them, for what is altered on the replica alone: a trigger, a key, a generated column.
//
// A table that nothing has come for is not looked at: a replication may begin and end often, and the database may have very many tables.
//
// In between a plan may be older than its table. What does not fit then fails or touches another number of rows, so it is not
// committed. What fits and would mean something else, such as a column that is no longer computed, is noticed within
// Options.LookInterval.

// reader begins transactions in which catalogs are read.
type reader interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// oneSnapshot makes a table's columns and keys those of one moment.
var oneSnapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// look is what all tables were. looks is how often single tables had been looked at when it began: of those it may know less.
type look struct {
	catalog Catalog
	looks   int64
}

// knownTables are those that have been looked at, for another goroutine.
type knownTables struct {
	mu    sync.Mutex
	names []schema.Name // it only grows
	has   map[schema.Name]bool
}

func (k *knownTables) add(names []schema.Name) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.has == nil {
		k.has = map[schema.Name]bool{}
	}
	for _, name := range names {
		if !k.has[name] {
			k.has[name], k.names = true, append(k.names, name)
		}
	}
}

func (k *knownTables) list() []schema.Name {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.names
}

// lookAround reads all known tables now and then.
func (e *Engine) lookAround(ctx context.Context) error {
	if e.config.Reader == nil {
		return nil
	}
	interval := e.config.Options.LookInterval
	for {
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		began := time.Now()
		now := look{looks: e.looks.Load()}
		names := e.known.list()
		if len(names) == 0 {
			continue
		}
		err := pgx.BeginTxFunc(ctx, e.config.Reader, oneSnapshot, func(tx pgx.Tx) (err error) {
			now.catalog, err = ReadCatalog(ctx, tx, names)
			return err
		})
		if err != nil {
			return err
		}
		interval = max(e.config.Options.LookInterval, time.Duration(e.config.Options.LookShare)*time.Since(began))
		select {
		case e.looked <- now:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookAt makes targets say what tables are now; of one that is not there it says nothing.
func (e *Engine) lookAt(ctx context.Context, names []schema.Name) error {
	if len(names) == 0 {
		return nil
	}
	now := e.config.Session.Catalog
	if e.config.Reader != nil {
		e.known.add(names) // before the look is counted: whoever has seen the count has seen the names
		e.looks.Add(1)
		err := pgx.BeginTxFunc(ctx, e.config.Reader, oneSnapshot, func(tx pgx.Tx) (err error) {
			now, err = ReadCatalog(ctx, tx, names)
			return err
		})
		if err != nil {
			return err
		}
	}
	altered := map[*Target]bool{}
	for _, name := range names {
		known := e.targets[name]
		if reflect.DeepEqual(now[name], known) {
			continue
		}
		if e.targets[name] = now[name]; known != nil {
			altered[known] = true
		}
	}
	if len(altered) == 0 {
		return nil
	}
	return e.altered(ctx, altered)
}

// adopt takes over what all tables are now.
func (e *Engine) adopt(ctx context.Context, now look) error {
	if now.looks != e.looks.Load() {
		return nil // the next one comes soon
	}
	altered := map[*Target]bool{}
	for name, known := range e.targets {
		if known == nil {
			continue // rows for it end the engine
		}
		if reflect.DeepEqual(known, now.catalog[name]) {
			now.catalog[name] = known
		} else {
			altered[known] = true
		}
	}
	e.targets = now.catalog
	if len(altered) == 0 {
		return nil
	}
	return e.altered(ctx, altered)
}

// altered forgets the ways to tables that are not what they were. A slice knows a table by one *Target, so that its operations
// stay in their order: what waits is written before others come.
func (e *Engine) altered(ctx context.Context, former map[*Target]bool) error {
	maps.DeleteFunc(e.routes, func(_ change.RelationHash, r *route) bool { return r.plan != nil && former[r.plan.Target] })
	return e.writeSlice(ctx)
}
