package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// Mutations counts what MutateAllKinds did.
type Mutations struct {
	Committed  int            // transactions
	RolledBack int            // transactions, by us or by the server
	Prepared   int            // transactions of either sort that went through PREPARE TRANSACTION
	Statements map[string]int // that succeeded, by sort, also when they were rolled back later
	Refused    map[string]int // statements that the server refused, by SQLSTATE
}

// preparedPrefix begins the names of all prepared transactions made here.
const preparedPrefix = "syncline pgtest "

// MutateAllKinds runs n random transactions over all tables of a database: inserts, upserts, updates, key changes,
// updates that leave large values alone, deletes, truncates, rows moved between partitions, savepoints that are
// released or rolled back, aborted and prepared transactions, and logical messages of somebody else. It works over any
// schema; values come from samples of the column's type, and a column of an unknown type keeps its default or NULL.
//
// Statements that a constraint or another session's lock stands against are rolled back to their savepoint, so several
// may run at once. Any other failure, such as a lost connection, is returned; FinishPrepared then clears what a lost
// session left prepared. What is done comes from r alone, as long as no other session writes.
func MutateAllKinds(ctx context.Context, conn *pgx.Conn, r *rand.Rand, n int) (Mutations, error) {
	m := &mutator{conn: conn, r: r, did: Mutations{Statements: map[string]int{}, Refused: map[string]int{}}}
	if err := m.readTables(ctx); err != nil {
		return m.did, fmt.Errorf("read tables to mutate: %w", err)
	}
	for range n {
		if err := m.transaction(ctx); err != nil {
			return m.did, err
		}
	}
	return m.did, nil
}

// FinishPrepared ends the prepared transactions that lost sessions of MutateAllKinds left in this database. Each is
// committed or rolled back by its name.
func FinishPrepared(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1)",
		preparedPrefix)
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		end := "ROLLBACK PREPARED "
		if len(gid)%2 == 0 {
			end = "COMMIT PREPARED "
		}
		if _, err := conn.Exec(ctx, end+postgres.Literal(gid)); err != nil {
			return err
		}
	}
	return nil
}

type mutator struct {
	conn     *pgx.Conn
	r        *rand.Rand
	tables   []mutable
	prepares bool // the server allows prepared transactions
	did      Mutations
}

// chance is true with probability p.
func (m *mutator) chance(p float64) bool { return m.r.Float64() < p }

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// transaction runs a few statements, each under a savepoint, and ends them in one of the ways there are.
func (m *mutator) transaction(ctx context.Context) error {
	begin := "BEGIN; SET LOCAL lock_timeout = '3s'"
	if m.chance(0.1) {
		begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '3s'"
	}
	if _, err := m.conn.Exec(ctx, begin); err != nil {
		return err
	}
	temporary := m.chance(0.05)
	if temporary {
		const noise = "CREATE TEMP TABLE noise (n int) ON COMMIT DROP; INSERT INTO noise SELECT generate_series(1, 100)"
		if _, err := m.conn.Exec(ctx, noise); err != nil {
			return err
		}
	}
	for range 1 + m.r.IntN(6) {
		if err := m.savepoint(ctx, 0); err != nil {
			return err
		}
	}
	return m.end(ctx, m.prepares && !temporary)
}

func (m *mutator) end(ctx context.Context, mayPrepare bool) error {
	end := "COMMIT"
	if m.chance(0.15) {
		end = "ROLLBACK"
	}
	if mayPrepare && m.chance(0.15) {
		gid := postgres.Literal(fmt.Sprintf("%s%016x", preparedPrefix, m.r.Uint64()))
		if ok, err := m.try(ctx, "PREPARE TRANSACTION "+gid); err != nil || !ok {
			m.did.RolledBack++ // a deferred constraint spoke
			return err
		}
		m.did.Prepared++
		end += " PREPARED " + gid
	}
	tag, ok, err := m.tryTag(ctx, end)
	if err != nil {
		return err
	}
	if ok && strings.HasPrefix(tag, "COMMIT") {
		m.did.Committed++
	} else {
		m.did.RolledBack++
	}
	return nil
}

// savepoint runs one statement, or several within a savepoint of their own.
func (m *mutator) savepoint(ctx context.Context, depth int) error {
	name := fmt.Sprintf("s%d", depth)
	if _, err := m.conn.Exec(ctx, "SAVEPOINT "+name); err != nil {
		return err
	}
	ok := true
	if depth < 3 && m.chance(0.2) {
		for range 1 + m.r.IntN(3) {
			if err := m.savepoint(ctx, depth+1); err != nil {
				return err
			}
		}
	} else {
		var err error
		if ok, err = m.statement(ctx); err != nil {
			return err
		}
	}
	end := "RELEASE " + name
	if !ok || m.chance(0.1) {
		end = "ROLLBACK TO " + name
	}
	_, err := m.conn.Exec(ctx, end)
	return err
}

// statement runs one random statement and tells whether the server took it.
func (m *mutator) statement(ctx context.Context) (bool, error) {
	if m.chance(0.02) {
		return m.count(ctx, "message", "SELECT pg_logical_emit_message($1, $2, $3::text)", m.chance(0.5), "somebody.else", "not for us")
	}
	t := pick(m.r, m.tables)
	if t.minor && m.chance(0.7) {
		t = pick(m.r, m.tables)
	}
	sort, sql, args := m.change(t)
	if sql == "" {
		return true, nil
	}
	return m.count(ctx, sort, sql, args...)
}

func (m *mutator) count(ctx context.Context, sort, sql string, args ...any) (bool, error) {
	ok, err := m.try(ctx, sql, args...)
	if ok {
		m.did.Statements[sort]++
	}
	return ok, err
}

func (m *mutator) try(ctx context.Context, sql string, args ...any) (bool, error) {
	_, ok, err := m.tryTag(ctx, sql, args...)
	return ok, err
}

// tryTag tells whether the server took a statement. A refusal for the reasons that random changes and other sessions
// give is no error.
func (m *mutator) tryTag(ctx context.Context, sql string, args ...any) (string, bool, error) {
	tag, err := m.conn.Exec(ctx, sql, args...)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		if err != nil {
			err = fmt.Errorf("%w\n  in %s", err, sql)
		}
		return tag.String(), err == nil, err
	}
	switch class := refused.Code[:2]; {
	case class == "22", class == "23": // data, constraint
	case class == "40": // deadlock, serialization
	case refused.Code == "55P03", refused.Code == "55006": // lock timeout, pending deferred triggers
	case refused.Code == "54000": // a key too large for its index
	case refused.Code == "21000": // an upsert or a cascade meets a row twice
	default:
		return "", false, fmt.Errorf("%w\n  in %s %q", err, sql, args)
	}
	m.did.Refused[refused.Code]++
	return "", false, nil
}
