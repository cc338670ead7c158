package apply

import (
	"context"
	"fmt"

	"github.com/seed0419d559/syncline/internal/filter"
)

// selection is the rows of a target that belong to the replication: what a truncate of the source removes of a table that may
// hold others too.
type selection struct {
	target    *Target
	condition string
}

// rowsOf selects the rows of a target that are this table's.
func (t Table) rowsOf(target *Target) (selection, error) {
	columns := make([]filter.Column, 0, len(target.Columns))
	for _, c := range target.Columns {
		if !c.Generated {
			columns = append(columns, filter.Column{Name: c.Name, TypeOID: c.TypeOID, Type: c.Type})
		}
	}
	condition, err := t.Rows(columns)
	if err != nil {
		return selection{}, &MismatchError{nameOf(target), fmt.Sprintf("the rows that a truncate removes cannot be told: %v", err)}
	}
	return selection{target, condition}, nil
}

// deleteSelected removes the selected rows, in the open target transaction and in the place of the truncate.
func (x *executor) deleteSelected(ctx context.Context, list []selection) error {
	for _, s := range list {
		b := builder{plan: &Plan{Target: s.target}}
		if _, err := x.writer.exec(ctx, "DELETE FROM "+b.table()+" WHERE "+s.condition); err != nil {
			return fmt.Errorf("truncate the selected rows of table %s: %w", nameOf(s.target), err)
		}
	}
	return nil
}
