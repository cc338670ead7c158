// Package compare proves that two databases hold the same rows. It reads every row of every table on both sides, key
// by key over the canonical text of the values, as multisets where a table has no key, and reports each row that is
// missing, extra, changed or doubled. Its memory holds a few rows at a time, whatever the size of the tables.
package compare

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// defaultDetails is how many differences a report describes; all are counted.
const defaultDetails = 50

// Options narrow or widen a comparison. The zero value compares every permanent table outside the schema syncline.
type Options struct {
	// Tables restricts the comparison to these tables, as schema.name without quotes. A name that is on neither side is
	// an error. Leaf partitions are compared through their root, so name the root.
	Tables []string
	// Except leaves tables out, written like Tables.
	Except []string
	// Sequences compares last_value and is_called of all sequences too.
	Sequences bool
	// Details is the number of differences that the report describes, 0 for 50. All are counted.
	Details int
	// Progress, when not nil, is called as each table begins.
	Progress func(table string)
}

// Databases compares the tables of two databases. a is what is expected, b what is tested.
//
// Each side is read in one repeatable read transaction, or within the caller's if a transaction is open, so a comparison
// while both are written to is of the moments at which it began. Both connections must be free; they may not be the same.
// After an error, or when ctx ends, they may be closed.
func Databases(ctx context.Context, a, b *pgx.Conn, opts Options) (_ Report, err error) {
	if a == b {
		return Report{}, errors.New("compare databases: both sides are the same connection")
	}
	if opts.Details == 0 {
		opts.Details = defaultDetails
	}
	c := &comparison{a: a, b: b, opts: opts}
	for _, conn := range []*pgx.Conn{a, b} {
		done, prepareErr := prepare(ctx, conn)
		if prepareErr != nil {
			return Report{}, prepareErr
		}
		defer func() { err = errors.Join(err, done()) }()
	}
	if err := c.tables(ctx); err != nil {
		return c.report, err
	}
	if opts.Sequences {
		if err := c.sequences(ctx); err != nil {
			return c.report, err
		}
	}
	return c.report, nil
}

type comparison struct {
	a, b   *pgx.Conn
	opts   Options
	report Report
}

// prepare opens a transaction, or a savepoint within the open one, whose settings make the text of values the same on
// every server. done takes it all back.
func prepare(ctx context.Context, conn *pgx.Conn) (done func() error, err error) {
	begin, end := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "ROLLBACK"
	if conn.PgConn().TxStatus() != 'I' {
		begin = "SAVEPOINT syncline_compare"
		end = "ROLLBACK TO SAVEPOINT syncline_compare; RELEASE SAVEPOINT syncline_compare"
	}
	if _, err := conn.Exec(ctx, begin); err != nil {
		return nil, fmt.Errorf("begin comparison: %w", err)
	}
	done = func() error {
		if conn.IsClosed() {
			return nil
		}
		_, err := conn.Exec(context.WithoutCancel(ctx), end)
		return err
	}
	settings := postgres.SessionSettings()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if _, err := conn.Exec(ctx, "SELECT set_config($1, $2, true)", name, settings[name]); err != nil {
			return nil, errors.Join(fmt.Errorf("set %s for comparison: %w", name, err), done())
		}
	}
	var encoding string
	if err := conn.QueryRow(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return nil, errors.Join(err, done())
	}
	if encoding != "UTF8" {
		// The order of keys is that of their bytes on the server.
		return nil, errors.Join(fmt.Errorf("compare databases: encoding %s is not supported, only UTF8", encoding), done())
	}
	return done, nil
}

func (c *comparison) tables(ctx context.Context) error {
	left, err := readTables(ctx, c.a)
	if err != nil {
		return err
	}
	right, err := readTables(ctx, c.b)
	if err != nil {
		return err
	}
	names, err := c.selected(left, right)
	if err != nil {
		return err
	}
	for _, name := range names {
		a, inA := left[name]
		b, inB := right[name]
		switch {
		case !inB:
			c.report.add(c.opts.Details, Difference{Table: name, Kind: MissingTable})
		case !inA:
			c.report.add(c.opts.Details, Difference{Table: name, Kind: ExtraTable})
		default:
			if c.opts.Progress != nil {
				c.opts.Progress(name)
			}
			if err := c.table(ctx, a, b); err != nil {
				return fmt.Errorf("compare table %s: %w", name, err)
			}
		}
	}
	return nil
}

// selected are the names of the tables to compare, sorted.
func (c *comparison) selected(left, right map[string]table) ([]string, error) {
	all := maps.Clone(left)
	maps.Copy(all, right)
	for _, name := range c.opts.Tables {
		if _, ok := all[name]; !ok {
			return nil, fmt.Errorf("compare table %s: there is no such permanent table on either side", name)
		}
	}
	names := slices.Sorted(maps.Keys(all))
	return slices.DeleteFunc(names, func(name string) bool {
		return len(c.opts.Tables) > 0 && !slices.Contains(c.opts.Tables, name) || slices.Contains(c.opts.Except, name)
	}), nil
}

func (c *comparison) sequences(ctx context.Context) error {
	left, err := readSequences(ctx, c.a)
	if err != nil {
		return err
	}
	right, err := readSequences(ctx, c.b)
	if err != nil {
		return err
	}
	all := maps.Clone(left)
	maps.Copy(all, right)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if left[name] != right[name] {
			c.report.add(c.opts.Details, Difference{Table: name, Kind: Sequence, A: left[name], B: right[name]})
		}
	}
	return nil
}
