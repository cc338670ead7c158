package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// load is tables and changes that reach every step between a primary and its replicas: beside a pgtest.Bank many small
// tables and one of several chunks, and while it runs transactions of several blocks, values in several pieces, swaps
// of unique values, TRUNCATE, rows without a key, and new tables. It lives in the schema bank, which random load leaves alone.
type load struct {
	url  string
	conn *pgx.Conn

	mu       sync.Mutex // held by a step, and while the load pauses
	steps    int
	added    []string // tables made while it runs
	stopping context.CancelFunc
	done     chan error
}

// smallTables are so many that each point of a copy can be passed several times.
const (
	smallTables = 24
	places      = 200
)

// loadTables go beside those of a pgtest.Bank. A row of big fills a page, so that it has three chunks of 32 MiB with little in
// them. Autovacuum leaves the tables of large transactions alone: an ANALYZE in the middle of one has the logger take them whole for
// ten minutes, and then it does not pass what it does with open ones.
const loadTables = `
CREATE TABLE bank.big (id integer PRIMARY KEY, note text NOT NULL) WITH (fillfactor = 10);
ALTER TABLE bank.big ALTER note SET STORAGE PLAIN;
INSERT INTO bank.big SELECT n, repeat(md5(n::text), 26) FROM generate_series(1, 8500) n;
CREATE TABLE bank.bulk (id bigint PRIMARY KEY, note text) WITH (autovacuum_enabled = off);
CREATE TABLE bank.places (id integer PRIMARY KEY, place integer NOT NULL UNIQUE);
INSERT INTO bank.places SELECT n, n FROM generate_series(1, 200) n;
CREATE TABLE bank.wide (id integer PRIMARY KEY, body text, version integer NOT NULL) WITH (autovacuum_enabled = off);
ALTER TABLE bank.wide ALTER body SET STORAGE EXTERNAL;
CREATE TABLE bank.today (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
CREATE TABLE bank.keyless (a integer, b text);
ALTER TABLE bank.keyless REPLICA IDENTITY FULL;
INSERT INTO bank.keyless SELECT n % 10, 'row' FROM generate_series(1, 100) n;
DO $$ BEGIN
	FOR n IN 1..24 LOOP
		EXECUTE format('CREATE TABLE bank.small_%s (id integer PRIMARY KEY, note text)', n);
		EXECUTE format('INSERT INTO bank.small_%s SELECT g, md5(g::text) FROM generate_series(1, 50) g', n);
	END LOOP;
END $$;`

// newLoad makes the tables in a database where a pgtest.Bank is.
func newLoad(t testing.TB, url string) *load {
	t.Helper()
	l := &load{url: url, conn: pgtest.Connect(t, url)}
	pgtest.Exec(t, l.conn, loadTables)
	return l
}

// start lets steps run one after the other until stop. When its server was killed the load connects again and goes on.
func (l *load) start(t testing.TB, seed uint64, interval time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l.stopping, l.done = cancel, make(chan error, 1)
	r := rand.New(rand.NewPCG(seed, 77))
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				l.done <- nil
				return
			case <-tick.C:
			}
			err := l.step(r)
			if lost(err) {
				err = l.reconnect(ctx)
			}
			if err != nil && ctx.Err() == nil {
				l.done <- err
				return
			}
		}
	}()
	t.Cleanup(cancel)
}

// lost tells whether an error comes from a server that was killed.
func lost(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return strings.HasPrefix(refused.Code, "57") || strings.HasPrefix(refused.Code, "08") || strings.HasPrefix(refused.Code, "53")
	}
	return err != nil
}

// reconnect tries until it succeeds or ctx ends.
func (l *load) reconnect(ctx context.Context) error {
	conn, err := connectAgain(ctx, l.url)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.Close(ctx)
	l.conn = conn
	return nil
}

// connectAgain connects to a server that may be starting, until ctx ends.
func connectAgain(ctx context.Context, url string) (*pgx.Conn, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// stop ends the load; its transactions are all committed then.
func (l *load) stop(t testing.TB) {
	t.Helper()
	l.stopping()
	if err := <-l.done; err != nil {
		t.Fatalf("load: %v", err)
	}
}

// step is one round of changes.
func (l *load) step(r *rand.Rand) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps++
	list := []string{swap(r), `INSERT INTO bank.today (note) SELECT 'n' || n FROM generate_series(1, 30) n`,
		fmt.Sprintf("INSERT INTO bank.keyless VALUES (%d, 'new'), (%d, 'new'); DELETE FROM bank.keyless WHERE ctid IN (SELECT ctid FROM bank.keyless LIMIT 2);"+
			"UPDATE bank.keyless SET b = 'step %d' WHERE a = %d", r.IntN(10), r.IntN(10), l.steps, r.IntN(10)),
		fmt.Sprintf("UPDATE bank.small_%d SET note = 'step %d' WHERE id %% 3 = %d", 1+r.IntN(smallTables), l.steps, r.IntN(3)),
		fmt.Sprintf("UPDATE bank.big SET note = 'step %d' WHERE id BETWEEN %d AND %[2]d + 20", l.steps, 1+r.IntN(8000))}
	switch l.steps % 5 {
	case 0:
		list = append(list, "TRUNCATE bank.today RESTART IDENTITY")
	case 1: // several blocks in one transaction
		list = append(list, fmt.Sprintf("INSERT INTO bank.bulk SELECT %d::bigint * 1000000 + n, repeat(md5(n::text), 4) FROM generate_series(1, 4000) n", l.steps))
	case 2: // a value in several pieces
		list = append(list, wideValue(r.IntN(3), 1200))
	case 3:
		list = append(list, "UPDATE bank.bulk SET note = note || '+' WHERE id % 2 = 0; DELETE FROM bank.bulk WHERE id % 3 = 0")
	case 4:
		list = append(list, "UPDATE bank.wide SET version = version + 1", "DELETE FROM bank.bulk")
	}
	for _, name := range l.added {
		list = append(list, fmt.Sprintf("INSERT INTO %s VALUES (%d, 'step') ON CONFLICT (id) DO UPDATE SET note = 'again'", name, 100+r.IntN(1000)))
	}
	return l.run(list...)
}

// run executes each text as one transaction.
func (l *load) run(list ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, sql := range list {
		if _, err := l.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("%w\n  in %.300s", err, sql)
		}
	}
	return nil
}

// swap exchanges the places of many pairs in one transaction. No single statement can do that on the replica, for each row
// takes a place that another still has.
func swap(r *rand.Rand) string {
	var pairs []string
	for order := r.Perm(places); len(pairs) < 40; order = order[2:] {
		pairs = append(pairs, fmt.Sprintf("(%d, %d), (%[2]d, %[1]d)", 1+order[0], 1+order[1]))
	}
	values := "(VALUES " + strings.Join(pairs, ", ") + ") pairs (id, other)"
	return "UPDATE bank.places SET place = -place WHERE id IN (SELECT id FROM " + values + ");" +
		"UPDATE bank.places p SET place = -o.place FROM " + values + ", bank.places o WHERE p.id = pairs.id AND o.id = pairs.other"
}

// wideValue stores a value of some KiB that cannot be compressed.
func wideValue(id, kib int) string {
	return fmt.Sprintf(`INSERT INTO bank.wide SELECT %d, string_agg(md5(random()::text || n), ''), 1 FROM generate_series(1, %d) n
		ON CONFLICT (id) DO UPDATE SET body = excluded.body`, id, kib*32)
}

// addTable makes a table that belongs to the load from then on.
func (l *load) addTable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := fmt.Sprintf("bank.added_%d", len(l.added)+1)
	err := l.run(fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (id integer PRIMARY KEY, note text);
		INSERT INTO %[1]s SELECT n, 'first' FROM generate_series(1, 20) n ON CONFLICT DO NOTHING`, name))
	if err == nil {
		l.added = append(l.added, name)
	}
	return err
}
