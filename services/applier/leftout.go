package applier

import (
	"context"
	"fmt"
	"slices"
	"time"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// leftOutInterval is how often the source is asked whether it captures tables that were left out.
const leftOutInterval = 5 * time.Second

// watchLeftOut ends the stream with an *apply.NewTableError once the source captures tables that were left out because it did not. Most
// of them are announced in the stream; but the announcement of one that came between the plan and the snapshot of the copies lies before
// the position that following begins at. The table would have no copy until it is changed for the first time.
func (r *runner) watchLeftOut(ctx context.Context, src *source, left []schema.Name, end context.CancelCauseFunc) {
	if len(left) == 0 {
		return
	}
	tick := time.NewTicker(leftOutInterval)
	defer tick.Stop()
	for {
		state, err := src.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{Set: src.set.name, Parameters: src.set.parameters})
		if err == nil {
			found := slices.DeleteFunc(slices.Clone(left), func(name schema.Name) bool { return !slices.Contains(state.GetTables(), name.SQL()) })
			if len(found) > 0 {
				end(&apply.NewTableError{Tables: found})
				return
			}
		} // else the stream tells what is wrong with the source
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stillLeftOut are the tables to watch: those of which no copy was made or tried since.
func (r *runner) stillLeftOut(tables []*storedTable) []schema.Name {
	return slices.DeleteFunc(slices.Clone(r.snapshot().leftOut), func(name schema.Name) bool {
		_, ignored := r.ignored[name]
		return ignored || slices.ContainsFunc(tables, func(t *storedTable) bool { return t.name == name })
	})
}

// setLeftOut stores which tables a plan leaves out because the source does not capture them.
func setLeftOut(ctx context.Context, q querier, replication string, names []schema.Name) error {
	if names == nil {
		names = []schema.Name{}
	}
	if _, err := q.Exec(ctx, "UPDATE syncline.replications SET left_out = $2 WHERE name = $1", replication, names); err != nil {
		return fmt.Errorf("store the tables that replication %s leaves out: %w", replication, err)
	}
	return nil
}
