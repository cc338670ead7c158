package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// finish builds indexes and constraints, sets the sequences, and moves to the phase of catching up.
func (r *runner) finish(ctx context.Context, session *apply.Session, src *source) error {
	conn := session.Conn()
	created, err := createdTables(ctx, conn, r.stored.name)
	if err != nil {
		return err
	}
	database, target, err := r.describeBoth(ctx, session, src)
	if err != nil {
		return err
	}
	steps, err := schema.CreateStatements(database, target, nonNil(created))
	if err != nil {
		return err
	}
	if err := r.build(ctx, conn.PgConn().PID(), steps.After); err != nil {
		return err
	}
	if err := r.setSequences(ctx, session, src); err != nil {
		return err
	}
	if err := session.Reload(ctx); err != nil {
		return err
	}
	fault.Point(FaultBuilt)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tables, err := listTables(ctx, tx, r.stored.name)
		if err != nil {
			return err
		}
		var first change.Position
		for _, t := range tables {
			if first.LogID.IsZero() || t.position.LSN < first.LSN {
				first = t.position
			}
		}
		if first.LogID.IsZero() {
			if first, err = r.emptyStart(ctx, src); err != nil {
				return err
			}
		}
		if err := setFirstPosition(ctx, tx, r.stored.name, first); err != nil {
			return err
		}
		return setPhase(ctx, tx, r.stored.name, phaseCatchingUp)
	})
}

// emptyStart is where a replication without any table begins: now.
func (r *runner) emptyStart(ctx context.Context, src *source) (change.Position, error) {
	state, err := src.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{})
	if err != nil {
		return change.Position{}, fmt.Errorf("ask the source's logger for its position: %w", err)
	}
	return positionOf(state.GetPosition())
}

func (r *runner) describeBoth(ctx context.Context, session *apply.Session, src *source) (source, target schema.Database, err error) {
	if source, err = src.describe(ctx, schema.Selection{}); err != nil {
		return source, target, err
	}
	if target, err = schema.Read(ctx, session.Conn(), everything); err != nil {
		return source, target, fmt.Errorf("read the replica's tables: %w", err)
	}
	return source, target, nil
}

func (r *runner) setSequences(ctx context.Context, session *apply.Session, src *source) error {
	database, target, err := r.describeBoth(ctx, session, src)
	if err != nil {
		return err
	}
	statements, err := schema.SequenceStatements(database, target)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, session.Conn(), func(tx pgx.Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s.SQL); err != nil {
				return fmt.Errorf("set sequence %s: %w", s.Name, err)
			}
		}
		return nil
	})
}

// build runs the statements after the load: neighbours that may run at the same time do, on sessions of their own. holder is the
// session that holds the replication's lock.
func (r *runner) build(ctx context.Context, holder uint32, statements []schema.Statement) error {
	for len(statements) > 0 {
		n := 1
		for statements[0].Parallel && n < len(statements) && statements[n].Parallel {
			n++
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(buildSessions)
		for _, s := range statements[:n] {
			group.Go(func() error { return r.buildOne(ctx, holder, s) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		statements = statements[n:]
	}
	return nil
}

const buildSessions = 2

func (r *runner) buildOne(ctx context.Context, holder uint32, s schema.Statement) error {
	r.status.update(func(st *status) {
		st.sync.phase, st.sync.detail = "building indexes", fmt.Sprintf("%s %s on %s", s.Kind, s.Name, s.Table)
	})
	conn, err := apply.ConnectLoader(ctx, r.config.PostgresURL, r.stored.name, holder)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if _, err := conn.Exec(ctx, s.SQL); err != nil {
		return fmt.Errorf("create %s %s on table %s: %w", s.Kind, s.Name, s.Table, err)
	}
	return nil
}
