package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
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
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var found *apply.NewTableError
		if errors.As(capturedBy(ctx, src, left), &found) {
			end(found)
			return
		} // for any other error the stream tells what is wrong with the source
	}
}

// capturedBy returns an *apply.NewTableError when the source captures some of the tables.
func capturedBy(ctx context.Context, src *source, tables []schema.Name) error {
	if len(tables) == 0 {
		return nil
	}
	state, err := src.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{Set: src.set.name, Parameters: src.set.parameters})
	if err != nil {
		return fmt.Errorf("ask the source's logger for its tables: %w", err)
	}
	found := slices.DeleteFunc(slices.Clone(tables), func(name schema.Name) bool { return !slices.Contains(state.GetTables(), name.SQL()) })
	if len(found) == 0 {
		return nil
	}
	return &apply.NewTableError{Tables: found}
}

// watchUnplanned adds to what is left out the tables that the source has got since the copies were planned. What happened to them before the
// copies' snapshot does not come in the stream, and a new partition is not announced at all.
func (r *runner) watchUnplanned(ctx context.Context, q querier, source schema.Renamed, tables []*storedTable) error {
	spec := r.snapshot()
	selection, err := schema.ParseSelection(spec.spec.GetIncludeTables(), spec.spec.GetExcludeTables())
	if err != nil {
		return err //nolint:wrapcheck // it names the pattern
	}
	left := slices.Clone(spec.leftOut)
	known := byName(tables)
	for _, t := range source.Tables {
		name := source.Source(t.FullName())
		if _, gone := r.ignored[name]; gone || !t.HasRows() || known[name] != nil || slices.Contains(left, name) || !selection.Matches(name, sourceAbove(source, t)...) {
			continue
		}
		left = append(left, name)
	}
	if len(left) == len(spec.leftOut) {
		return nil
	}
	return setLeftOut(ctx, q, r.name, left)
}

// sourceAbove are the partitioned tables above a table, under the source's names.
func sourceAbove(source schema.Renamed, t schema.Table) []schema.Name {
	above := sets.Above(source.Database, t)
	for i, name := range above {
		above[i] = source.Source(name)
	}
	return above
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
