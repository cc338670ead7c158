package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/setup"
)

// A table is waited for in turns: while we wait for its lock, everybody else waits behind us. A turn is longer than the server's
// deadlock_timeout (1 s by default), for only then does an autovacuum give way.
const (
	tableLockTimeout  = "3s"
	tableLockAttempts = 3
	tableLockPause    = time.Second
)

// mender carries out statements.
type mender struct {
	conn  *pgx.Conn
	by    string
	tried map[string]string // statements, with why they could not be carried out; empty when they were
}

// run carries out what is to be done and was not tried yet: settings, then privileges in one transaction, then tables, each by itself.
// A statement that PostgreSQL refuses does not keep the others from being carried out. It returns an error when the connection is lost.
func (m *mender) run(ctx context.Context, findings []finding) error {
	for _, sql := range m.open(findings, setup.Outside) {
		_, err := m.conn.Exec(ctx, sql)
		if err := m.note(ctx, sql, err); err != nil {
			return err
		}
	}
	if together := m.open(findings, setup.Together); together != nil {
		if err := m.together(ctx, together); err != nil {
			return err
		}
	}
	for _, sql := range m.open(findings, setup.Alone) {
		if err := m.note(ctx, sql, m.alone(ctx, sql)); err != nil {
			return err
		}
	}
	return nil
}

// open are the statements of a manner that were not tried yet, each once.
func (m *mender) open(findings []finding, manner setup.Manner) (list []string) {
	seen := map[string]bool{}
	for _, f := range findings {
		if f.State != findingToDo || f.manner != manner {
			continue
		}
		for _, sql := range f.SQL {
			if _, tried := m.tried[sql]; !tried && !seen[sql] {
				seen[sql] = true
				list = append(list, sql)
			}
		}
	}
	return list
}

// note keeps why PostgreSQL has refused a statement. It returns every other error.
func (m *mender) note(ctx context.Context, sql string, err error) error {
	code := postgres.Code(err)
	switch {
	case err == nil:
		m.tried[sql] = ""
	case ctx.Err() != nil || code == "" || m.conn.IsClosed():
		return fmt.Errorf("%s: %w; what was carried out before is kept: run it again", sql, err)
	case code == "42501":
		m.tried[sql] = fmt.Sprintf("role %s may not do that (%s): run it as a superuser", m.by, serverMessage(err))
	case code == "55P03":
		m.tried[sql] = "the table was locked by others all the time: run it again when less is going on there"
	default:
		m.tried[sql] = "PostgreSQL refused it: " + serverMessage(err)
	}
	return nil
}

// together runs statements in one transaction, each in a savepoint.
func (m *mender) together(ctx context.Context, statements []string) error {
	err := pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		for _, sql := range statements {
			err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
				_, err := savepoint.Exec(ctx, sql)
				return err
			})
			if err := m.note(ctx, sql, err); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("grant privileges: %w", err)
	}
	return nil
}

// alone runs a statement that locks a table, in a transaction of its own.
func (m *mender) alone(ctx context.Context, sql string) (err error) {
	for attempt := range tableLockAttempts {
		if attempt > 0 {
			select {
			case <-time.After(tableLockPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err = pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+tableLockTimeout+"'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, sql)
			return err
		})
		if postgres.Code(err) != "55P03" {
			return err
		}
	}
	return err
}

// serverMessage is what the server says of an error.
func serverMessage(err error) string {
	if pg := new(pgconn.PgError); errors.As(err, &pg) {
		return pg.Message
	}
	return err.Error()
}
