package applier

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// foreignKeyViolation is the SQLSTATE.
const foreignKeyViolation = "23503"

// catchUp waits until the position has passed that of every table's copy: only then are the tables consistent with one
// another, foreign keys can be added, and the replication is running.
type catchUp struct {
	runner  *runner
	session *apply.Session
	source  *source
	until   change.LSN
	pending bool
}

// reached is called between two target transactions, after position was applied.
func (c *catchUp) reached(ctx context.Context, position change.LSN) error {
	if !c.pending || position < c.until {
		return nil
	}
	c.pending = false
	r := c.runner
	created, err := createdTables(ctx, c.session.Conn(), r.name)
	if err != nil {
		return err
	}
	var foreignKeys []schema.Statement
	if len(created) > 0 && !r.noForeignKeys {
		source, target, err := r.describeBoth(ctx, c.session, c.source)
		if err != nil {
			return err
		}
		steps, err := schema.CreateStatements(source, target, created)
		if err != nil {
			return err
		}
		foreignKeys = steps.ForeignKeys
	}
	for _, s := range foreignKeys {
		r.status.update(func(st *status) {
			st.sync.phase, st.sync.detail = "adding foreign keys", fmt.Sprintf("%s on %s", s.Name, s.Table)
		})
		_, err := c.session.Conn().Exec(ctx, s.SQL)
		if postgres.Code(err) == foreignKeyViolation && c.source.set.name != "" {
			r.status.update(func(st *status) {
				st.warn(fmt.Sprintf("foreign key %s of table %s is left out: the set does not select all of the rows that it refers to", s.Name, s.Table))
			})
			continue
		}
		if err != nil {
			return fmt.Errorf("add foreign key %s to table %s: %w", s.Name, s.Table, err)
		}
	}
	err = pgx.BeginFunc(ctx, c.session.Conn(), func(tx pgx.Tx) error {
		if err := setCreatedTables(ctx, tx, r.name, nil); err != nil {
			return err
		}
		return setPhase(ctx, tx, r.name, phaseRunning)
	})
	if err != nil {
		return err
	}
	fault.Point(FaultCaughtUp)
	if err := r.setPhase(ctx, phaseRunning); err != nil {
		return err
	}
	r.status.update(func(s *status) {
		s.state, s.sync.phase, s.sync.detail = applierv1.State_STATE_RUNNING, "done", ""
	})
	return nil
}
