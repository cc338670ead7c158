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
	created, err := createdTables(ctx, conn, r.name)
	if err != nil {
		return err
	}
	described, target, err := r.describeRenamed(ctx, session, src)
	if err != nil {
		return err
	}
	database := described.Database
	steps, err := schema.CreateStatements(database, target, nonNil(created))
	if err != nil {
		return err
	}
	r.noForeignKeys = len(steps.ForeignKeys) == 0
	if err := createLate(ctx, conn, steps.Before); err != nil {
		return err
	}
	if err := r.build(ctx, conn.PgConn().PID(), steps.After); err != nil {
		return err
	}
	if err := r.setSequences(ctx, session, src, database, target); err != nil {
		return err
	}
	fault.Point(FaultBuilt)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tables, err := listTables(ctx, tx, r.name)
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
		if err := setFirstPosition(ctx, tx, r.name, first); err != nil {
			return err
		}
		if err := r.watchUnplanned(ctx, tx, described, tables); err != nil {
			return err
		}
		return setPhase(ctx, tx, r.name, phaseCatchingUp)
	})
}

// createLate creates the sequences of columns that the source, or the set, has got since the tables were made here: they are to be owned by
// their columns like the others.
func createLate(ctx context.Context, conn *pgx.Conn, missing []schema.Statement) error {
	for _, s := range missing {
		if s.Kind != schema.StatementSequence {
			continue
		}
		if _, err := conn.Exec(ctx, s.SQL); err != nil {
			return fmt.Errorf("create %s %s: %w", s.Kind, s.Name, err)
		}
	}
	return nil
}

// emptyStart is where a replication without any table begins: now.
func (r *runner) emptyStart(ctx context.Context, src *source) (change.Position, error) {
	state, err := src.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{Set: src.set.name, Parameters: src.set.parameters})
	if err != nil {
		return change.Position{}, fmt.Errorf("ask the source's logger for its position: %w", err)
	}
	return positionOf(state.GetPosition())
}

// describeBoth reads the two databases at the same time, the source under the names that it has here.
func (r *runner) describeBoth(ctx context.Context, session *apply.Session, src *source) (source, target schema.Database, err error) {
	renamed, target, err := r.describeRenamed(ctx, session, src)
	return renamed.Database, target, err
}

func (r *runner) describeRenamed(ctx context.Context, session *apply.Session, src *source) (source schema.Renamed, target schema.Database, err error) {
	spec := r.snapshot().spec
	var described schema.Database
	group, reading := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		described, err = src.describeFor(reading, spec)
		return err
	})
	group.Go(func() (err error) {
		if target, err = schema.Read(reading, session.Conn(), everything); err != nil {
			return fmt.Errorf("read the replica's tables: %w", err)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return source, target, err
	}
	if err := target.ReadAvailable(ctx, session.Conn(), described); err != nil {
		return source, target, err //nolint:wrapcheck // it says what failed
	}
	renaming, err := renamingOf(spec)
	if err != nil {
		return source, target, err
	}
	source, err = renaming.Apply(described)
	return source, target, err //nolint:wrapcheck // it says which name
}

// setSequences gives the replica's sequences the values that the source's have by now. The descriptions are from before the
// indexes were built; they tell whether there are any.
func (r *runner) setSequences(ctx context.Context, session *apply.Session, src *source, database, target schema.Database) error {
	statements, err := schema.SequenceStatements(database, target)
	if err != nil || len(statements) == 0 {
		return err
	}
	if database, target, err = r.describeBoth(ctx, session, src); err != nil {
		return err
	}
	if statements, err = schema.SequenceStatements(database, target); err != nil {
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

// build runs the statements after the load: neighbours that may run at the same time do, on as many sessions as copy. holder is the
// session that holds the replication's lock.
func (r *runner) build(ctx context.Context, holder uint32, statements []schema.Statement) error {
	most := r.config.options(r.snapshot().spec).copyWorkers
	for len(statements) > 0 {
		n := 1
		for statements[0].Parallel && n < len(statements) && statements[n].Parallel {
			n++
		}
		todo := make(chan schema.Statement, n)
		for _, s := range statements[:n] {
			todo <- s
		}
		close(todo)
		group, ctx := errgroup.WithContext(ctx)
		for range min(n, most) {
			group.Go(func() error { return r.builder(ctx, holder, todo, most/n) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		statements = statements[n:]
	}
	return nil
}

// builder is one session that builds.
func (r *runner) builder(ctx context.Context, holder uint32, todo <-chan schema.Statement, processes int) error {
	conn, err := apply.ConnectLoader(ctx, r.config.PostgresURL, r.name, holder)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	for s := range todo {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.status.update(func(st *status) { st.sync.phase, st.sync.detail = "building indexes", describe(s) })
		if err := buildOne(ctx, conn, s, processes); err != nil {
			return err
		}
	}
	return nil
}

// describe is what people are told of a statement while it runs.
func describe(s schema.Statement) string { return fmt.Sprintf("%s %s on %s", s.Kind, s.Name, s.Table) }

// fewerWorkers bounds the processes that the server adds to a build, without going beyond what the server is set to.
const fewerWorkers = `SELECT pg_catalog.set_config(name, least(reset_val::int, $1)::text, false) FROM pg_catalog.pg_settings
	WHERE name = 'max_parallel_maintenance_workers'`

// buildOne builds with as many of the server's processes as are the build's share of the sessions that may work at the same time. Several
// indexes side by side take less of the server than one after the other by several processes each: a fifth of the CPU time of a
// whole copy less, where each built its index with two more.
func buildOne(ctx context.Context, conn *pgx.Conn, s schema.Statement, processes int) error {
	if _, err := conn.Exec(ctx, fewerWorkers, max(processes-1, 0)); err != nil {
		return fmt.Errorf("prepare to create %s %s on table %s: %w", s.Kind, s.Name, s.Table, err)
	}
	if _, err := conn.Exec(ctx, s.SQL); err != nil {
		return fmt.Errorf("create %s %s on table %s: %w", s.Kind, s.Name, s.Table, err)
	}
	return nil
}
