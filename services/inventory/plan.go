package inventory

import (
	"fmt"
	"slices"
	"strings"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// maxPages is above every page number that PostgreSQL has.
const maxPages = 1<<32 - 1

// dumpPlan is what a valid request asks for.
type dumpPlan struct {
	name       schema.Name
	columns    []string // empty for all
	types      []uint32 // of the columns, as the client knows them; empty when it does not say
	from, to   int64    // pages; to 0 is the end of the table
	format     inventoryv1.DumpFormat
	chunkBytes int
	rows       string // a condition for the rows, "" for all
}

// planDump checks a request as far as that can be done without the database.
func planDump(request *inventoryv1.DumpRequest) (dumpPlan, error) {
	name, err := tableOf("dump", request)
	if err != nil {
		return dumpPlan{}, err
	}
	plan := dumpPlan{
		name:    name,
		columns: request.GetColumns(), from: request.GetFromPage(), to: request.GetToPage(),
		format: request.GetFormat(), types: request.GetColumnTypes(), chunkBytes: int(request.GetChunkBytes()),
	}
	if plan.format == inventoryv1.DumpFormat_DUMP_FORMAT_UNSPECIFIED {
		plan.format = inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT
	}
	if plan.chunkBytes == 0 {
		plan.chunkBytes = DefaultChunkBytes
	}
	switch {
	case plan.from < 0 || plan.from >= maxPages:
		return plan, rpc.Invalid("from_page", "must be between 0 and %d", maxPages-1)
	case plan.to < 0 || plan.to > maxPages:
		return plan, rpc.Invalid("to_page", "must be between 0 and %d", maxPages)
	case plan.to != 0 && plan.to <= plan.from:
		return plan, rpc.Invalid("to_page", "must be above from_page, or 0 to read to the end")
	case len(plan.types) > 0 && len(plan.types) != len(plan.columns):
		return plan, rpc.Invalid("column_types", "there are %d, and %d columns", len(plan.types), len(plan.columns))
	case inventoryv1.DumpFormat_name[int32(plan.format)] == "":
		return plan, rpc.Invalid("format", "there is no format %d", plan.format)
	case plan.chunkBytes < 0 || plan.chunkBytes > MaxChunkBytes:
		return plan, rpc.Invalid("chunk_bytes", "must be between 0 and %d", MaxChunkBytes)
	}
	for i, column := range plan.columns {
		if slices.Contains(plan.columns[:i], column) {
			return plan, fmt.Errorf("dump table %s: %w %q: it is asked for twice", plan.name, ErrColumn, column)
		}
	}
	return plan, nil
}

// where is the condition for the asked rows. PostgreSQL finds the pages with a TID range scan.
func (p dumpPlan) where() string {
	var conditions []string
	if p.from > 0 {
		conditions = append(conditions, fmt.Sprintf("ctid >= '(%d,0)'::tid", p.from))
	}
	if p.to > 0 {
		conditions = append(conditions, fmt.Sprintf("ctid < '(%d,0)'::tid", p.to))
	}
	if p.rows != "" {
		conditions = append(conditions, p.rows)
	}
	if conditions == nil {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

// resumePages is how many pages are read by one COPY, after which a dump that breaks off can go on: 32 MiB of the main storage.
const resumePages = 4096

// steps are the plans of the COPY statements that make the dump, in order of their pages. Those of the binary format cannot be put
// together, so there is one.
func (p dumpPlan) steps(tablePages, stepPages int64) []dumpPlan {
	if p.format == inventoryv1.DumpFormat_DUMP_FORMAT_COPY_BINARY {
		return []dumpPlan{p}
	}
	end := tablePages
	if p.to != 0 {
		end = min(end, p.to)
	}
	var steps []dumpPlan
	for rest := p; ; rest.from += stepPages {
		if rest.from+stepPages >= end {
			return append(steps, rest)
		}
		step := rest
		step.to = rest.from + stepPages
		steps = append(steps, step)
	}
}

// copyStatement is the SQL of the dump.
func (p dumpPlan) copyStatement(columns []column) string {
	rows := selectColumns(p.name, columns) + p.where()
	switch p.format {
	case inventoryv1.DumpFormat_DUMP_FORMAT_CSV:
		return "COPY (" + rows + ") TO STDOUT (FORMAT csv)"
	case inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES:
		// r.* is the row even where a column has the name r.
		return "COPY (SELECT row_to_json(r.*) FROM (" + rows + ") AS r) TO STDOUT"
	case inventoryv1.DumpFormat_DUMP_FORMAT_COPY_BINARY:
		return "COPY (" + rows + ") TO STDOUT (FORMAT binary)"
	default:
		return "COPY (" + rows + ") TO STDOUT"
	}
}

// selectColumns reads a table's own rows, not those of tables that inherit from it.
func selectColumns(table schema.Name, columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return "SELECT " + postgres.Idents(names) + " FROM ONLY " + table.SQL()
}
