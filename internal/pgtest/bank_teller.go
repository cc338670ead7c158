package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// teller is one client of a Bank.
type teller struct {
	bank *Bank
	url  string
	id   int
	r    *rand.Rand

	mu       sync.Mutex // of what follows
	fates    []fate     // by number of the transaction
	lines    []int      // by number: lines in the history, if it commits
	connects int
}

const reconnectPause = 50 * time.Millisecond

// work makes transactions until ctx ends.
func (c *teller) work(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.session(ctx)
		if err != nil && ctx.Err() == nil && !explainable(err) {
			c.bank.fail(fmt.Errorf("client %d: %w", c.id, err))
			return
		}
		if !wait(ctx, time.Duration(c.r.Int64N(int64(reconnectPause)))) {
			return
		}
	}
}

// explainable tells whether a crash, a broken network or another client can be behind an error.
func explainable(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return true // the connection failed
	}
	class := refused.Code[:2]
	return class == "57" || class == "08" || class == "53" || class == "40" || refused.Code == "55P03"
}

// session works over one connection until it fails.
func (c *teller) session(ctx context.Context) error {
	connecting, cancel := context.WithTimeout(ctx, c.bank.opts.Patience)
	defer cancel()
	conn, err := pgx.Connect(connecting, c.url)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	c.mu.Lock()
	c.connects++
	c.mu.Unlock()
	for ctx.Err() == nil {
		if err := c.transaction(ctx, conn); err != nil {
			return err
		}
		if pause := c.bank.opts.Pause; pause > 0 {
			wait(ctx, time.Duration(c.r.ExpFloat64()*float64(pause)))
		}
	}
	return nil
}

func (c *teller) begin(lines int) (number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fates = append(c.fates, unknown)
	c.lines = append(c.lines, lines)
	return len(c.fates) - 1
}

func (c *teller) settle(number int, f fate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fates[number] = f
}

// move is one transfer.
type move struct {
	debtor, creditor int
	amount           int64
}

// draw makes up the transfers of a transaction.
func (c *teller) draw() (moves []move, accounts []int) {
	lines := 1
	if c.r.IntN(4) == 0 {
		lines += c.r.IntN(4)
	}
	for range lines {
		m := move{1 + c.r.IntN(c.bank.opts.Accounts), 1 + c.r.IntN(c.bank.opts.Accounts), 1 + c.r.Int64N(100)}
		moves = append(moves, m)
		accounts = append(accounts, m.debtor, m.creditor)
	}
	return moves, accounts
}

// transaction makes one to four transfers, some of them with a mistake that is rolled back to a savepoint, and rolls
// one transaction in twenty back.
func (c *teller) transaction(ctx context.Context, conn *pgx.Conn) error {
	// A transaction that was begun is brought to its end when the clients are stopped, so that its fate is known.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.bank.opts.Patience)
	defer cancel()
	moves, accounts := c.draw()
	number := c.begin(len(moves))
	if err := c.carryOut(ctx, conn, number, moves, accounts); err != nil {
		c.settle(number, absent) // no COMMIT was sent
		return err
	}
	if c.r.IntN(20) == 0 {
		c.settle(number, absent)
		_, err := conn.Exec(ctx, "ROLLBACK")
		return err
	}
	if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
		return err
	}
	c.settle(number, promised)
	return nil
}

func (c *teller) carryOut(ctx context.Context, conn *pgx.Conn, number int, moves []move, accounts []int) error {
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	// Locked in one order, clients wait for each other but never in a circle.
	const lock = "SELECT FROM bank.accounts WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"
	if _, err := conn.Exec(ctx, lock, accounts); err != nil {
		return err
	}
	for line, m := range moves {
		if err := c.transfer(ctx, conn, number, line, m); err != nil {
			return err
		}
	}
	return nil
}

func (c *teller) transfer(ctx context.Context, conn *pgx.Conn, number, line int, m move) error {
	note := "transfer"
	if c.r.IntN(50) == 0 {
		note = strings.Repeat(fmt.Sprintf("%x ", c.r.Uint64()), 1000) // is stored out of line
	}
	var batch pgx.Batch
	if c.r.IntN(10) == 0 {
		batch.Queue("SAVEPOINT mistake")
		batch.Queue("UPDATE bank.accounts SET balance = balance - 1, moves = -1 WHERE id = $1", m.debtor)
		batch.Queue("ROLLBACK TO mistake")
	}
	batch.Queue("UPDATE bank.accounts SET balance = balance - $2, moves = moves + 1 WHERE id = $1", m.debtor, m.amount)
	batch.Queue("UPDATE bank.accounts SET balance = balance + $2, moves = moves + 1 WHERE id = $1", m.creditor, m.amount)
	batch.Queue("INSERT INTO bank.history (client, number, line, debtor, creditor, amount, note) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		c.id, number, line, m.debtor, m.creditor, m.amount, note)
	return conn.SendBatch(ctx, &batch).Close()
}
