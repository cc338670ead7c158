package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// truncate empties the tables of one statement. PostgreSQL refuses to TRUNCATE a table that a table outside of the list
// refers to, even while foreign keys are not enforced: then the rows are deleted instead.
func (e *Engine) truncate(ctx context.Context, b *block.Block, t *block.Truncate) error {
	var targets []*Target
	for _, index := range t.Relations {
		r, err := e.route(b.Relations[index])
		if err != nil {
			return err
		}
		if e.skips(r) || slices.Contains(targets, r.plan.Target) {
			continue
		}
		relation := r.plan.Relation
		if target := r.plan.Target; target.Schema != relation.Schema || target.Name != relation.Name {
			return &MismatchError{Table: nameOf(target), Reason: fmt.Sprintf(
				"the source truncated its partition %s.%s, which is not a table of its own here; truncate its rows on the replica by hand, or give the replica the same partitions", relation.Schema, relation.Name)}
		}
		targets = append(targets, r.plan.Target)
	}
	if len(targets) == 0 {
		return nil
	}
	if err := e.writeSlice(ctx); err != nil {
		return err
	}
	if err := e.begin(ctx); err != nil {
		return err
	}
	e.group.changes += int64(len(targets))
	for _, sql := range []string{"SAVEPOINT syncline_truncate", truncateSQL(targets, t.RestartIdentity)} {
		if _, err := e.writer.exec(ctx, sql); err != nil {
			if postgres.Code(err) != codeFeatureNotSupported {
				return fmt.Errorf("truncate %s: %w", names(targets), err)
			}
			return e.deleteAll(ctx, targets)
		}
	}
	_, err := e.writer.exec(ctx, "RELEASE SAVEPOINT syncline_truncate")
	return err
}

const codeFeatureNotSupported = "0A000"

func (e *Engine) deleteAll(ctx context.Context, targets []*Target) error {
	if _, err := e.writer.exec(ctx, "ROLLBACK TO SAVEPOINT syncline_truncate"); err != nil {
		return fmt.Errorf("truncate %s: %w", names(targets), err)
	}
	for _, target := range targets {
		b := builder{plan: &Plan{Target: target}}
		if _, err := e.writer.exec(ctx, "DELETE FROM "+b.table()); err != nil {
			return fmt.Errorf("empty table %s: %w", nameOf(target), err)
		}
	}
	return nil
}

func truncateSQL(targets []*Target, restartIdentity bool) string {
	var sql strings.Builder
	sql.WriteString("TRUNCATE ")
	for i, target := range targets {
		if i > 0 {
			sql.WriteString(", ")
		}
		b := builder{plan: &Plan{Target: target}}
		sql.WriteString(b.table())
	}
	if restartIdentity {
		sql.WriteString(" RESTART IDENTITY")
	}
	return sql.String()
}

func names(targets []*Target) string {
	list := make([]string, len(targets))
	for i, target := range targets {
		list[i] = nameOf(target).String()
	}
	return strings.Join(list, ", ")
}
