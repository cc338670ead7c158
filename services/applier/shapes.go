package applier

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
)

// storedShapes are the shapes of a table on both sides, as of when it was taken into the replication.
type storedShapes struct {
	source, target []string
	at             time.Time
}

// storeShapes remembers the shapes of the tables that the plan takes into the replication. A table that it creates has the source's.
func (p *plan) storeShapes(ctx context.Context, q querier, replication string) error {
	for _, t := range slices.Concat(p.tables, p.restored.stored()) {
		described, found := p.described.Table(t.name)
		if !found {
			continue
		}
		renamed, _ := p.source.Of(t.name)
		source, target := described.Shape(), renamed.Shape()
		if there, exists := p.target.Table(t.target); exists {
			target = there.Shape()
		}
		_, err := q.Exec(ctx, `UPDATE syncline.tables SET source_shape = $4, target_shape = $5, shaped_at = now()
			WHERE replication = $1 AND schema_name = $2 AND table_name = $3`, replication, t.name.Schema, t.name.Name, source, target)
		if err != nil {
			return fmt.Errorf("store shape of table %s: %w", t.name, err)
		}
	}
	return nil
}

// listShapes returns the stored shapes of a replication's tables; those of before they were stored are left out.
func listShapes(ctx context.Context, q querier, replication string) (map[schema.Name]storedShapes, error) {
	rows, err := q.Query(ctx, "SELECT schema_name, table_name, source_shape, target_shape, shaped_at FROM syncline.tables WHERE replication = $1 AND shaped_at IS NOT NULL", replication)
	if err != nil {
		return nil, fmt.Errorf("read shapes of replication %s: %w", replication, err)
	}
	shapes := map[schema.Name]storedShapes{}
	var name schema.Name
	var one storedShapes
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &one.source, &one.target, &one.at}, func() error {
		shapes[name] = one
		one = storedShapes{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read shapes of replication %s: %w", replication, err)
	}
	return shapes, nil
}
