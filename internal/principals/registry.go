package principals

import (
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/postgres"
)

const (
	// reloadAfter is how long a change that another process made is not known here.
	reloadAfter = time.Second
	// againAfter is how long nobody has the database asked again for a credential that is not known.
	againAfter   = 50 * time.Millisecond
	againTimeout = 2 * time.Second
	// poolSize is enough for looking and for an admin.
	poolSize      = 2
	reloadTimeout = 10 * time.Second
)

// Config is what a registry needs.
type Config struct {
	PostgresURL string // of the node's database
	// Required refuses calls without a principal; otherwise every call is taken.
	Required bool
	Log      *slog.Logger
}

// known is a principal as calls meet it.
type known struct {
	principal *access.Principal
	record    *Record       // nil for this process itself
	revoked   chan struct{} // closed when the record is changed or gone
}

// Registry knows the principals, without asking the database for each call.
type Registry struct {
	config Config
	pool   *pgxpool.Pool
	store  *Store
	self   *known // calls of this process to its own services
	secret access.TokenHash
	token  string // whose hash is secret

	reloading   sync.Mutex
	read        time.Time    // when the principals were last asked for; of reloading
	mu          sync.RWMutex // of what stands below
	tokens      []*known
	certificate map[string]*known
	names       map[string]*known
}

// New makes a registry. It connects to nothing.
func New(config Config) (*Registry, error) {
	connConfig, err := postgres.Config(config.PostgresURL, "syncline access")
	if err != nil {
		return nil, err
	}
	poolConfig, err := pgxpool.ParseConfig(config.PostgresURL)
	if err != nil {
		return nil, fmt.Errorf("parse connection URL %s: not a PostgreSQL URL", postgres.Redact(config.PostgresURL))
	}
	poolConfig.ConnConfig, poolConfig.MaxConns, poolConfig.MinConns = connConfig, poolSize, 0
	pool, err := pgxpool.NewWithConfig(context.Background(), poolConfig)
	if err != nil {
		return nil, fmt.Errorf("open connection pool: %w", err)
	}
	r := &Registry{config: config, pool: pool, store: NewStore(pool), token: access.NewToken()}
	r.secret = access.HashToken(r.token)
	r.self = &known{principal: &access.Principal{Name: "(this process)", Role: access.Operator}}
	return r, nil
}

// Required tells whether calls need a principal.
func (r *Registry) Required() bool { return r.config.Required }

// OwnToken returns the token by which this process calls its own services. It is made anew with each process, and stays in its
// memory.
func (r *Registry) OwnToken() (string, error) { return r.token, nil }

// Load reads the principals before the process serves, where calls need one.
func (r *Registry) Load(ctx context.Context) error {
	if !r.config.Required {
		return nil
	}
	if err := r.reload(ctx); err != nil {
		return err
	}
	if r.empty() {
		r.config.Log.Warn("every call needs a principal, and there is none yet: make the first with `syncline principal create NAME --role admin --postgres URL`")
	}
	return nil
}

// Run keeps up with what other processes change, until ctx ends. While the database cannot be reached what was known stays in force.
func (r *Registry) Run(ctx context.Context) error {
	defer r.pool.Close()
	if !r.config.Required {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(reloadAfter)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err := r.reload(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			r.config.Log.Warn("principals cannot be read; those that are known stay in force", "error", err)
		}
		failing = err != nil
	}
}

func (r *Registry) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	// One after the other, so that an older answer never takes the place of a newer one.
	r.reloading.Lock()
	defer r.reloading.Unlock()
	return r.readAll(ctx)
}

// again looks once more for a credential that is not known, which another process may just have made. Whoever shows wrong ones
// has the database asked rarely, and nobody waits for another one's look.
func (r *Registry) again(ctx context.Context) bool {
	if !r.reloading.TryLock() {
		return false
	}
	defer r.reloading.Unlock()
	if time.Since(r.read) < againAfter {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, againTimeout)
	defer cancel()
	return r.readAll(ctx) == nil
}

// readAll needs reloading.
func (r *Registry) readAll(ctx context.Context) error {
	r.read = time.Now()
	list, err := r.store.List(ctx)
	if err != nil {
		return err
	}
	r.replace(list)
	return nil
}

// replace puts new records in force. Who is unchanged keeps its streams.
func (r *Registry) replace(list []*Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.names
	r.names, r.certificate, r.tokens = make(map[string]*known, len(list)), make(map[string]*known), nil
	for _, record := range list {
		one := before[record.Name]
		if one == nil || !reflect.DeepEqual(one.record, record) {
			one = &known{principal: &record.Principal, record: record, revoked: make(chan struct{})}
		}
		r.names[record.Name] = one
		if record.TokenHash != nil {
			r.tokens = append(r.tokens, one)
		} else {
			r.certificate[record.Certificate] = one
		}
	}
	for name, one := range before {
		if r.names[name] != one {
			close(one.revoked)
		}
	}
}

func (r *Registry) empty() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.names) == 0
}

// byToken finds the principal of a token in a time that does not tell how near the token is to one that counts.
func (r *Registry) byToken(token string) *known {
	hash := access.HashToken(token)
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found *known
	if subtle.ConstantTimeCompare(hash[:], r.secret[:]) == 1 {
		found = r.self
	}
	for _, one := range r.tokens {
		if subtle.ConstantTimeCompare(hash[:], one.record.TokenHash[:]) == 1 {
			found = one
		}
	}
	return found
}

func (r *Registry) byName(name string) *known {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[name]
}

// byCertificate finds the principal that one of a certificate's names belongs to. Two principals are as bad as none: which of them
// is meant cannot be told.
func (r *Registry) byCertificate(names []string) (found *known, several bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, name := range names {
		one := r.certificate[name]
		switch {
		case one == nil || one == found:
		case found != nil:
			return nil, true
		default:
			found = one
		}
	}
	return found, false
}
