package pgtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// BankOptions shape a Bank. The zero value is good.
type BankOptions struct {
	Accounts int           // 0 for 100
	Opening  int64         // balance of each account at the start, 0 for 1000
	Pause    time.Duration // mean pause of a client between two transactions
	Patience time.Duration // how long a client waits for one transaction before it takes its connection for dead, 0 for 10 s
}

// Bank is a load whose truth is known from outside: clients move money between accounts, so the total never changes,
// write each transfer down in a history, and remember which transactions they were told are committed. Clients live
// through lost connections and killed servers: they connect again and go on.
type Bank struct {
	opts BankOptions

	mu      sync.Mutex
	clients []*teller
	failure error // the first that a crash does not explain
	cancel  context.CancelFunc
	wait    sync.WaitGroup
}

// fate is what a client knows of one of its transactions.
type fate byte

const (
	unknown  fate = iota // begun; its COMMIT may have been carried out or not
	absent               // rolled back for sure
	promised             // the server said that it is committed
)

const bankSchema = `
CREATE SCHEMA bank;
CREATE TABLE bank.accounts (id integer PRIMARY KEY, balance bigint NOT NULL, moves bigint NOT NULL DEFAULT 0);
CREATE TABLE bank.history (client integer, number integer, line integer, debtor integer NOT NULL REFERENCES bank.accounts,
	creditor integer NOT NULL REFERENCES bank.accounts, amount bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
	note text, PRIMARY KEY (client, number, line));`

// NewBank makes the tables of a bank in the schema bank of a database. Its clients end with the test at the latest.
func NewBank(t testing.TB, url string, opts BankOptions) *Bank {
	t.Helper()
	if opts.Accounts == 0 {
		opts.Accounts = 100
	}
	if opts.Opening == 0 {
		opts.Opening = 1000
	}
	if opts.Patience == 0 {
		opts.Patience = 10 * time.Second
	}
	conn := Connect(t, url)
	Exec(t, conn, bankSchema)
	Exec(t, conn, "INSERT INTO bank.accounts (id, balance) SELECT n, $2 FROM generate_series(1, $1::integer) n", opts.Accounts, opts.Opening)
	b := &Bank{opts: opts}
	t.Cleanup(b.halt)
	return b
}

// Start lets clients work on the bank at url, which may be a Proxy's, until Stop. It may be called again for more
// clients. What each tries comes from the seed.
func (b *Bank) Start(t testing.TB, url string, clients int, seed uint64) {
	t.Helper()
	t.Logf("bank: %d clients with seed %d", clients, seed)
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	if previous := b.cancel; previous != nil {
		b.cancel = func() { previous(); cancel() }
	} else {
		b.cancel = cancel
	}
	for range clients {
		c := &teller{bank: b, url: url, id: len(b.clients), r: seeded(seed, len(b.clients))}
		b.clients = append(b.clients, c)
		b.wait.Go(func() { c.work(ctx) })
	}
}

// Stop ends all clients and waits for them. It fails the test if one met an error that no crash explains.
func (b *Bank) Stop(t testing.TB) {
	t.Helper()
	b.halt()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failure != nil {
		t.Fatalf("bank: %v", b.failure)
	}
}

func (b *Bank) halt() {
	b.mu.Lock()
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.wait.Wait()
}

// Total is the sum of all balances at all times.
func (b *Bank) Total() int64 { return int64(b.opts.Accounts) * b.opts.Opening }

// BankStats count transactions.
type BankStats struct {
	Promised int // the server said that they are committed
	Unknown  int // under way, or the connection was lost before the answer
	Absent   int // rolled back
	Connects int // connections made
}

// Stats counts what all clients have done so far.
func (b *Bank) Stats() BankStats {
	b.mu.Lock()
	clients := b.clients
	b.mu.Unlock()
	var s BankStats
	for _, c := range clients {
		c.mu.Lock()
		s.Connects += c.connects
		for _, f := range c.fates {
			switch f {
			case promised:
				s.Promised++
			case absent:
				s.Absent++
			case unknown:
				s.Unknown++
			}
		}
		c.mu.Unlock()
	}
	return s
}

const bankInvariants = `
SELECT (SELECT coalesce(sum(balance), 0)::bigint FROM bank.accounts), (SELECT count(*) FROM bank.accounts),
	(SELECT count(*) FROM bank.accounts a
		LEFT JOIN (SELECT account, sum(amount) AS amount, count(*) AS moves
			FROM (SELECT creditor AS account, amount FROM bank.history UNION ALL SELECT debtor, -amount FROM bank.history) m
			GROUP BY account) h ON h.account = a.id
		WHERE a.balance <> $1 + coalesce(h.amount, 0) OR a.moves <> coalesce(h.moves, 0))`

// CheckConsistent is true of every state that a reader of the bank, or of a copy of it, may ever see: the total is right,
// and each balance is what the history says. It is one statement, so it may run at any time.
func (b *Bank) CheckConsistent(ctx context.Context, conn *pgx.Conn) error {
	var total, accounts, wrong int64
	if err := conn.QueryRow(ctx, bankInvariants, b.opts.Opening).Scan(&total, &accounts, &wrong); err != nil {
		return err
	}
	if total != b.Total() || accounts != int64(b.opts.Accounts) || wrong != 0 {
		return fmt.Errorf("bank holds %d in %d accounts, expected %d in %d; %d accounts are not what their history says",
			total, accounts, b.Total(), b.opts.Accounts, wrong)
	}
	return nil
}

// Check holds a bank, or a copy that has caught up, against what the clients know: every promised transaction is there
// with all its lines, none that was rolled back is, and CheckConsistent holds. The clients must have been stopped.
func (b *Bank) Check(ctx context.Context, conn *pgx.Conn) error {
	if err := b.CheckConsistent(ctx, conn); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	rows, err := conn.Query(ctx, "SELECT client, number, count(*), max(line) FROM bank.history GROUP BY client, number")
	if err != nil {
		return err
	}
	found := make([]map[int]bool, len(b.clients))
	for i := range found {
		found[i] = map[int]bool{}
	}
	var client, number, lines, last int
	var problems []error
	_, err = pgx.ForEachRow(rows, []any{&client, &number, &lines, &last}, func() error {
		switch {
		case client >= len(b.clients) || number >= len(b.clients[client].fates):
			problems = append(problems, fmt.Errorf("transaction %d of client %d was never begun", number, client))
			return nil
		case b.clients[client].fates[number] == absent:
			problems = append(problems, fmt.Errorf("transaction %d of client %d is there but was rolled back", number, client))
		case lines != b.clients[client].lines[number] || last != lines-1:
			problems = append(problems, fmt.Errorf("transaction %d of client %d has %d lines up to %d, expected %d",
				number, client, lines, last, b.clients[client].lines[number]))
		}
		found[client][number] = true
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range b.clients {
		for number, f := range c.fates {
			if f == promised && !found[c.id][number] {
				problems = append(problems, fmt.Errorf("transaction %d of client %d was committed and is lost", number, c.id))
			}
		}
	}
	if len(problems) > 20 {
		problems = append(problems[:20], fmt.Errorf("and %d more", len(problems)-20))
	}
	return errors.Join(problems...)
}

func (b *Bank) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failure == nil {
		b.failure = err
	}
}
