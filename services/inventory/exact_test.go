package inventory

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

const (
	loadClients   = 16
	loadStoppers  = 3
	loadSnapshots = 50
	loadAccounts  = 200
	loadOpening   = 1000
)

// loadTables are written by the load. The first columns, keys of them, are the primary key.
var loadTables = []struct {
	name string
	keys int
}{{"accounts", 1}, {"events", 2}, {"scratch", 1}}

// TestCopyAndStreamAreExact opens snapshots under a load that commits as fast as it can. A slot that was there before the load
// tells every transaction. Each copy must equal the state after exactly the transactions that end at or before the
// snapshot's position: so the copy and the stream after it give the table, each row once. At the end the primary must hold
// what the stream gives and what its clients were told: reading has damaged nothing.
func TestCopyAndStreamAreExact(t *testing.T) {
	server := pgtest.New(t, pgtest.WithSetting("autovacuum_naptime", "1s"), pgtest.WithSetting("max_prepared_transactions", "40"))
	b := serve(t, server.Database(t))
	pgtest.Exec(t, b.admin, `
		CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 70);
		CREATE TABLE events (client int, number int, note text, PRIMARY KEY (client, number));
		CREATE TABLE scratch (id int PRIMARY KEY, n bigint, note text);
		CREATE PUBLICATION p FOR TABLE accounts, events, scratch`)
	pgtest.Exec(t, b.admin, "SELECT pg_create_logical_replication_slot('witness', 'pgoutput')")
	pgtest.Exec(t, b.admin, "INSERT INTO accounts SELECT n, $1 FROM generate_series(1, $2::int) n", loadOpening, loadAccounts)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	load := &load{url: b.url}
	load.start(t, seed)

	var copies []map[string]digest
	var positions []uint64
	began := time.Now()
	var slowest time.Duration
	for len(copies) < loadSnapshots {
		opening := time.Now()
		s := b.mustOpen(t)
		slowest = max(slowest, time.Since(opening))
		copies = append(copies, b.copyTables(t, s.GetSnapshotId()))
		positions = append(positions, s.GetPosition().GetLsn())
		if _, err := b.CloseSnapshot(t.Context(), &inventoryv1.CloseSnapshotRequest{SnapshotId: s.GetSnapshotId()}); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	load.stop(t)
	final := b.mustOpen(t)
	copies = append(copies, b.copyTables(t, final.GetSnapshotId()))
	positions = append(positions, final.GetPosition().GetLsn())
	t.Logf("%d snapshots in %v, the slowest opened in %v; %d transactions of %d clients", loadSnapshots, took.Round(time.Millisecond),
		slowest.Round(time.Millisecond), load.commits.Load(), loadClients)

	state := newState()
	next := 0
	for end, changes := range witnessed(t, b.admin) {
		for ; next < len(positions) && positions[next] < end; next++ {
			state.require(t, fmt.Sprintf("snapshot %d", next+1), copies[next])
		}
		for _, c := range changes {
			state.apply(t, c)
		}
	}
	for ; next < len(positions); next++ {
		state.require(t, fmt.Sprintf("snapshot %d", next+1), copies[next])
	}
	load.requirePromised(t, b.admin)
	if total := pgtest.QueryRow[int64](t, b.admin, "SELECT sum(balance)::int8 FROM accounts"); total != loadAccounts*loadOpening {
		t.Errorf("the accounts hold %d, want %d", total, loadAccounts*loadOpening)
	}
}

// digest tells multisets of rows apart: a sum of hashes is the same in any order, and a row can be taken out again.
type digest struct {
	rows int64
	sum  [2]uint64
}

func (d *digest) add(row string, times int64) {
	h := sha256.Sum256([]byte(row))
	d.rows += times
	d.sum[0] += uint64(times) * binary.BigEndian.Uint64(h[:])
	d.sum[1] += uint64(times) * binary.BigEndian.Uint64(h[8:])
}

// copyTables dumps the tables, the largest one in two page ranges at the same time.
func (b *bench) copyTables(t *testing.T, id string) map[string]digest {
	t.Helper()
	type part struct {
		table    string
		from, to int64
		digest   digest
		total    int64
		err      error
	}
	parts := []*part{{table: "accounts"}, {table: "scratch"}, {table: "events", to: 50}, {table: "events", from: 50}}
	var copying sync.WaitGroup
	for _, p := range parts {
		copying.Go(func() {
			var data []byte
			data, _, p.err = b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: id, Schema: "public", Table: p.table, FromPage: p.from, ToPage: p.to})
			for row := range strings.Lines(string(data)) {
				row = strings.TrimSuffix(row, "\n")
				p.digest.add(row, 1)
				if p.table == "accounts" {
					balance, err := strconv.ParseInt(row[strings.IndexByte(row, '\t')+1:], 10, 64)
					if err != nil {
						p.err = err
					}
					p.total += balance
				}
			}
		})
	}
	copying.Wait()
	digests := make(map[string]digest)
	for _, p := range parts {
		if p.err != nil {
			t.Fatal(p.err)
		}
		d := digests[p.table]
		d.rows += p.digest.rows
		d.sum[0] += p.digest.sum[0]
		d.sum[1] += p.digest.sum[1]
		digests[p.table] = d
		if p.table == "accounts" && p.total != loadAccounts*loadOpening {
			t.Errorf("the copied accounts hold %d, want %d", p.total, loadAccounts*loadOpening)
		}
	}
	return digests
}

// rowChange is one row event: the table, its key, and the row after it, "" for a deletion.
type rowChange struct{ table, key, row string }

// witnessed returns what the slot tells, transaction by transaction in commit order: its end LSN and its changes.
func witnessed(t *testing.T, conn *pgx.Conn) func(yield func(uint64, []rowChange) bool) {
	return func(yield func(uint64, []rowChange) bool) {
		relations := make(map[uint32]string)
		for more := true; more; {
			more = false
			rows, err := conn.Query(t.Context(), "SELECT data FROM pg_logical_slot_get_binary_changes('witness', NULL, 20000, 'proto_version', '1', 'publication_names', 'p')")
			if err != nil {
				t.Fatal(err)
			}
			messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
			if err != nil {
				t.Fatal(err)
			}
			var changes []rowChange
			for _, data := range messages {
				more = true
				message, err := pglogrepl.Parse(data)
				if err != nil {
					t.Fatal(err)
				}
				switch m := message.(type) {
				case *pglogrepl.RelationMessage:
					relations[m.RelationID] = m.RelationName
				case *pglogrepl.InsertMessage:
					changes = append(changes, changed(relations[m.RelationID], m.Tuple, false))
				case *pglogrepl.UpdateMessage:
					changes = append(changes, changed(relations[m.RelationID], m.NewTuple, false))
				case *pglogrepl.DeleteMessage:
					changes = append(changes, changed(relations[m.RelationID], m.OldTuple, true))
				case *pglogrepl.CommitMessage:
					if !yield(uint64(m.TransactionEndLSN), changes) {
						return
					}
					changes = nil
				}
			}
		}
	}
}

func changed(table string, tuple *pglogrepl.TupleData, deleted bool) rowChange {
	var values []string
	for _, c := range tuple.Columns {
		if c.DataType == pglogrepl.TupleDataTypeNull {
			values = append(values, `\N`)
			continue
		}
		values = append(values, string(c.Data))
	}
	i := slices.IndexFunc(loadTables, func(x struct {
		name string
		keys int
	}) bool {
		return x.name == table
	})
	c := rowChange{table: table, key: strings.Join(values[:loadTables[i].keys], "\t")}
	if !deleted {
		c.row = strings.Join(values, "\t")
	}
	return c
}

// state is the tables after some transactions.
type state struct {
	rows    map[string]map[string]string
	digests map[string]*digest
}

func newState() *state {
	s := &state{rows: make(map[string]map[string]string), digests: make(map[string]*digest)}
	for _, table := range loadTables {
		s.rows[table.name], s.digests[table.name] = make(map[string]string), &digest{}
	}
	return s
}

func (s *state) apply(t *testing.T, c rowChange) {
	t.Helper()
	rows, d := s.rows[c.table], s.digests[c.table]
	if old, found := rows[c.key]; found {
		d.add(old, -1)
		delete(rows, c.key)
	} else if c.row == "" {
		t.Fatalf("the stream deletes %s %q, which is not there", c.table, c.key)
	}
	if c.row != "" {
		rows[c.key] = c.row
		d.add(c.row, 1)
	}
}

func (s *state) require(t *testing.T, what string, copied map[string]digest) {
	t.Helper()
	for table, want := range s.digests {
		if got := copied[table]; got != *want {
			t.Errorf("%s: the copy of %s has %d rows, the transactions up to its position give %d, or others", what, table, got.rows, want.rows)
		}
	}
}

// load is clients that write as fast as they can and remember what they were told.
type load struct {
	url     string
	commits atomic.Int64
	cancel  context.CancelFunc
	done    sync.WaitGroup
	pids    []int // of the server's processes

	mu       sync.Mutex
	promised map[[2]int]bool // client and number of an event: whether it was committed
	failure  error
}

func (l *load) start(t *testing.T, seed uint64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.promised = cancel, make(map[[2]int]bool)
	for client := range loadClients {
		conn, err := pgx.Connect(t.Context(), l.url)
		if err != nil {
			t.Fatal(err)
		}
		l.pids = append(l.pids, int(conn.PgConn().PID()))
		r := rand.New(rand.NewPCG(seed, uint64(client)))
		l.done.Go(func() {
			defer conn.Close(context.Background())
			if err := l.client(ctx, conn, client, r); err != nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.failure = err
			}
		})
	}
	t.Cleanup(func() { cancel(); l.done.Wait() })
	for i := range loadStoppers {
		r := rand.New(rand.NewPCG(seed, uint64(loadClients+i)))
		l.done.Go(func() { l.stopper(ctx, r) })
	}
}

// stopper stops the server's process of one client after the other for a moment. A committing transaction mostly waits for
// its commit record to be flushed, and often another's flush does it: a process that is stopped there has committed for whoever
// reads WAL, long before it says so in the commit log. Without stopping, that lasts for microseconds.
func (l *load) stopper(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		pid := l.pids[r.IntN(len(l.pids))]
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return // the client has ended
		}
		select {
		case <-time.After(time.Duration(10+r.IntN(90)) * time.Millisecond):
		case <-ctx.Done():
		}
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	if l.failure != nil {
		t.Fatal(l.failure)
	}
}

// client writes until ctx ends; a transaction that has begun is finished.
func (l *load) client(ctx context.Context, conn *pgx.Conn, client int, r *rand.Rand) error {
	background := context.Background()
	if client%4 == 0 { // its commits are decoded long before they are waited for
		if _, err := conn.Exec(background, "SET synchronous_commit = off"); err != nil {
			return err
		}
	}
	event := func(number int, note string) string {
		return fmt.Sprintf("INSERT INTO events VALUES (%d, %d, '%s'); ", client, number, note)
	}
	for number := 1; ctx.Err() == nil; number += 3 {
		kept := map[int]bool{number: true}
		var sql strings.Builder
		sql.WriteString("BEGIN; " + event(number, "first"))
		switch r.IntN(4) {
		case 0, 1: // money
			from, to := 1+r.IntN(loadAccounts), 1+r.IntN(loadAccounts)
			amount := r.IntN(100)
			if from > to {
				from, to, amount = to, from, -amount
			}
			fmt.Fprintf(&sql, "UPDATE accounts SET balance = balance - %d WHERE id = %d; UPDATE accounts SET balance = balance + %d WHERE id = %d; ", amount, from, amount, to)
		case 2: // subtransactions, kept and not
			kept[number+1], kept[number+2] = false, true
			sql.WriteString("SAVEPOINT a; " + event(number+1, "undone") + "ROLLBACK TO a; SAVEPOINT b; SAVEPOINT c; " + event(number+2, "nested") + "RELEASE c; RELEASE b; ")
		case 3:
			id := r.IntN(500)
			if r.IntN(3) == 0 {
				fmt.Fprintf(&sql, "DELETE FROM scratch WHERE id = %d; ", id)
			} else {
				fmt.Fprintf(&sql, "INSERT INTO scratch VALUES (%d, %d, NULL) ON CONFLICT (id) DO UPDATE SET n = scratch.n + 1, note = 'again'; ", id, r.IntN(1000))
			}
		}
		committed := true
		switch x := r.IntN(100); {
		case x < 5:
			committed = false
			sql.WriteString("ROLLBACK")
		case x < 7:
			fmt.Fprintf(&sql, "PREPARE TRANSACTION 'client %d'", client)
		default:
			sql.WriteString("COMMIT")
		}
		_, err := conn.Exec(background, sql.String())
		if err == nil && strings.HasSuffix(sql.String(), "'") {
			_, err = conn.Exec(background, fmt.Sprintf("COMMIT PREPARED 'client %d'", client))
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		for n, keep := range kept {
			l.promised[[2]int{client, n}] = keep && committed
		}
		l.mu.Unlock()
		if committed {
			l.commits.Add(1)
		}
	}
	return nil
}

// requirePromised compares the events with what the clients were told, through the index and without it.
func (l *load) requirePromised(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, setting := range []string{"SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_indexscan = off; SET enable_bitmapscan = off"} {
		pgtest.Exec(t, conn, setting)
		rows, err := conn.Query(t.Context(), "SELECT client, number FROM events ORDER BY client, number")
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[[2]int]bool)
		var client, number int
		if _, err := pgx.ForEachRow(rows, []any{&client, &number}, func() error {
			found[[2]int{client, number}] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		lost, invented := 0, 0
		for event, committed := range l.promised {
			switch {
			case committed && !found[event]:
				lost++
			case !committed && found[event]:
				invented++
			}
		}
		if lost+invented > 0 {
			t.Errorf("the primary lost %d events that were committed, and has %d that were not", lost, invented)
		}
	}
}
