package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// truncate hands the truncate of one statement to the executor, after what comes before it.
func (e *Engine) truncate(ctx context.Context, b *block.Block, t *block.Truncate) error {
	var targets []*Target
	var selected []selection
	for _, index := range t.Relations {
		r, err := e.route(ctx, b.Relations[index])
		if err != nil {
			return err
		}
		skip, err := e.skips(r)
		if err != nil {
			return err
		}
		if skip || slices.Contains(targets, r.plan.Target) {
			continue
		}
		relation := r.plan.Relation
		if target := r.plan.Target; !r.table.Own {
			return &MismatchError{Table: nameOf(target), Reason: fmt.Sprintf(
				"the source truncated its partition %s.%s, which is not a table of its own here; truncate its rows on the replica by hand, or give the replica the same partitions", relation.Schema, relation.Name)}
		}
		if r.table.Rows == nil {
			targets = append(targets, r.plan.Target)
			continue
		}
		rows, err := r.table.rowsOf(r.plan.Target)
		if err != nil {
			return err
		}
		selected = append(selected, rows)
	}
	if len(targets)+len(selected) == 0 {
		return nil
	}
	if err := e.writeSlice(ctx); err != nil {
		return err
	}
	origin, err := e.originMessage()
	if err != nil {
		return err
	}
	e.group.changes += int64(len(targets) + len(selected))
	return e.hand(ctx, task{truncate: &truncation{origin: origin, targets: targets, selected: selected, restartIdentity: t.RestartIdentity}})
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
