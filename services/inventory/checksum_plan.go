package inventory

import (
	"fmt"
	"slices"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Limits of a request for checksums.
const (
	defaultRowsPerChunk = 10_000
	maxChunks           = 1 << 16
)

// checksumPlan is what a valid request asks for.
type checksumPlan struct {
	name         schema.Name
	columns      []string // empty for all
	key          []string // empty for whole rows
	order        checksum.Order
	ranges       []checksum.Range // by digest those that are asked for, cut
	rowsPerChunk int64
	rows         bool
}

// planChecksum checks a request as far as that can be done without the database.
func planChecksum(request *inventoryv1.ChecksumRequest) (checksumPlan, error) {
	name, err := tableOf("checksum of", request)
	if err != nil {
		return checksumPlan{}, err
	}
	plan := checksumPlan{
		name: name, columns: request.GetColumns(), key: request.GetKey(),
		rowsPerChunk: request.GetRowsPerChunk(), rows: request.GetRows(),
	}
	if plan.rowsPerChunk == 0 {
		plan.rowsPerChunk = defaultRowsPerChunk
	}
	switch request.GetOrder() {
	case inventoryv1.ChecksumOrder_CHECKSUM_ORDER_UNSPECIFIED, inventoryv1.ChecksumOrder_CHECKSUM_ORDER_DIGEST:
	case inventoryv1.ChecksumOrder_CHECKSUM_ORDER_KEY:
		plan.order = checksum.ByKey
	}
	switch {
	case plan.rowsPerChunk < 0:
		return plan, rpc.Invalid("rows_per_chunk", "must not be negative")
	case request.GetChunks() < 0:
		return plan, rpc.Invalid("chunks", "must not be negative")
	case plan.order == checksum.ByKey && len(plan.key) == 0:
		return plan, rpc.Invalid("key", "is needed for the order of the key")
	case max(int(request.GetChunks()), 1)*max(len(request.GetRanges()), 1) > maxChunks:
		return plan, rpc.Invalid("chunks", "are more than %d in all", maxChunks)
	}
	for _, list := range [][]string{plan.columns, plan.key} {
		for i, column := range list {
			if slices.Contains(list[:i], column) {
				return plan, fmt.Errorf("checksum of table %s: %w %q: it is asked for twice", plan.name, ErrColumn, column)
			}
		}
	}
	return plan, plan.takeRanges(request)
}

// whole tells whether the ranges are the whole table.
func (p *checksumPlan) whole() bool {
	return len(p.ranges) == 1 && len(p.ranges[0].After) == 0 && len(p.ranges[0].Through) == 0
}

func (p *checksumPlan) takeRanges(request *inventoryv1.ChecksumRequest) error {
	for _, r := range request.GetRanges() {
		p.ranges = append(p.ranges, checksum.Range{After: r.GetAfter(), Through: r.GetThrough()})
	}
	if p.ranges == nil {
		p.ranges = []checksum.Range{{}}
	}
	if p.order == checksum.ByKey {
		for i, r := range p.ranges {
			if n := len(r.After); n != 0 && n != len(p.key) {
				return rpc.Invalid("ranges", "range %d begins after %d values, and the key has %d columns", i, n, len(p.key))
			}
			if n := len(r.Through); n != 0 && n != len(p.key) {
				return rpc.Invalid("ranges", "range %d ends at %d values, and the key has %d columns", i, n, len(p.key))
			}
		}
		return nil
	}
	asked := p.ranges
	p.ranges = nil
	for _, r := range asked {
		parts, err := r.Cut(max(int(request.GetChunks()), 1))
		if err != nil {
			return rpc.Invalid("ranges", "%v", err)
		}
		p.ranges = append(p.ranges, parts...)
	}
	return nil
}
