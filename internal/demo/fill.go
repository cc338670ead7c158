package demo

import (
	"context"
	_ "embed" // the SQL of the demonstration's tables
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/postgres"
)

//go:embed schema.sql
var schemaSQL string

//go:embed fill.sql
var fillSQL string

//go:embed indexes.sql
var indexesSQL string

const (
	application = "syncline demo"

	// Shares of the fill, so that two lanes of about equal length run at the same time.
	officeSchema = "office."

	// Orders lie in the monthsBack months before today, and the load adds those of today.
	monthsBack, monthsAhead = 11, 2
)

// business is the size of the company.
type business struct {
	today                            time.Time // midnight UTC
	products, customers, addresses   int
	orders, documents, events, moves int
	pgbenchScale                     int
}

// sized returns a company of a given size. 1 is some 400 MB with indexes.
func sized(scale float64) business {
	n := func(base int) int { return max(20, int(float64(base)*scale)) }
	return business{
		today:    time.Now().UTC().Truncate(24 * time.Hour),
		products: n(5_000), customers: n(80_000), addresses: n(120_000),
		orders: n(200_000), documents: n(2_500), events: n(300_000), moves: min(n(20_000), 20_000),
		pgbenchScale: max(1, int(5*scale)),
	}
}

// parameters are the words that fill.sql uses.
func (b business) parameters() map[string]string {
	return map[string]string{
		"products": strconv.Itoa(b.products), "customers": strconv.Itoa(b.customers), "addresses": strconv.Itoa(b.addresses),
		"orders": strconv.Itoa(b.orders), "documents": strconv.Itoa(b.documents), "events": strconv.Itoa(b.events),
		"stock_moves": strconv.Itoa(b.moves),
		"today":       "(timestamptz " + postgres.Literal(b.today.Format("2006-01-02 15:04:05Z07:00")) + ")",
	}
}

// step fills one table.
type step struct{ table, sql string }

var parameter = regexp.MustCompile(`([^:]):([a-z_]+)\b`)

// steps splits fill.sql and puts the sizes in.
func (b business) steps() []step {
	values := b.parameters()
	var steps []step
	for _, part := range strings.Split(fillSQL, "-- name: ")[1:] {
		table, sql, _ := strings.Cut(part, "\n")
		sql = parameter.ReplaceAllStringFunc(sql, func(found string) string { return found[:1] + values[found[2:]] })
		steps = append(steps, step{table: table, sql: sql})
	}
	return steps
}

// partitions creates the months of shop.orders.
func (b business) partitions() string {
	var sql strings.Builder
	first := time.Date(b.today.Year(), b.today.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, -monthsBack, 0)
	for i := range monthsBack + monthsAhead + 1 {
		from := first.AddDate(0, i, 0)
		fmt.Fprintf(&sql, "CREATE TABLE %s PARTITION OF shop.orders FOR VALUES FROM (%s) TO (%s);\n",
			postgres.Ident("shop", from.Format("orders_2006_01")),
			postgres.Literal(from.Format(time.DateOnly)), postgres.Literal(from.AddDate(0, 1, 0).Format(time.DateOnly)))
	}
	sql.WriteString("CREATE TABLE shop.orders_other PARTITION OF shop.orders DEFAULT;\n")
	return sql.String()
}

// filled is what the primary holds then.
type filled struct {
	tables int
	rows   int64
	bytes  int64
}

// fill makes and fills the company's tables and, with a path of pgbench, pgbench's. working is told what is being
// filled; it may be called at the same time.
func (b business) fill(ctx context.Context, url, pgbench string, working func(what string)) (filled, error) {
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return filled{}, err
	}
	defer disconnect(conn)
	if _, err := conn.Exec(ctx, schemaSQL+b.partitions()); err != nil {
		return filled{}, fmt.Errorf("create the company's tables: %w", err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.lane(groupCtx, url, working, false, indexesSQL) })
	group.Go(func() error {
		if err := b.lane(groupCtx, url, working, true, ""); err != nil || pgbench == "" {
			return err
		}
		working("pgbench's tables")
		return b.initPgbench(groupCtx, url, pgbench)
	})
	if err := group.Wait(); err != nil {
		return filled{}, err
	}
	working("ANALYZE")
	if _, err := conn.Exec(ctx, "ANALYZE"); err != nil {
		return filled{}, fmt.Errorf("analyze the company's tables: %w", err)
	}
	return measure(ctx, conn)
}

// lane fills the tables of schema office, or the others, and then runs after.
func (b business) lane(ctx context.Context, url string, working func(string), office bool, after string) error {
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	for _, s := range b.steps() {
		if strings.HasPrefix(s.table, officeSchema) != office {
			continue
		}
		working(s.table)
		// The same seed gives the same rows each time.
		if _, err := conn.Exec(ctx, "SELECT setseed(0.42);\n"+s.sql); err != nil {
			return fmt.Errorf("fill table %s: %w", s.table, err)
		}
	}
	for statement := range strings.SplitSeq(after, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		working("indexes and foreign keys")
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("index the company's tables: %w", err)
		}
	}
	return nil
}

func (b business) initPgbench(ctx context.Context, url, pgbench string) error {
	cmd := exec.CommandContext(ctx, pgbench, "--initialize", "--quiet", "--scale", strconv.Itoa(b.pgbenchScale), url)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %v: %w: %s", cmd.Args, err, out)
	}
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	// The one table of pgbench's without a key.
	if _, err := conn.Exec(ctx, "ALTER TABLE public.pgbench_history REPLICA IDENTITY FULL"); err != nil {
		return fmt.Errorf("give pgbench_history an identity: %w", err)
	}
	return nil
}

// measure counts leaves as their tables, and rows by the statistics of the ANALYZE before.
func measure(ctx context.Context, conn *pgx.Conn) (f filled, err error) {
	err = conn.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE NOT relispartition), coalesce(sum(greatest(reltuples, 0)) FILTER (WHERE relkind = 'r'), 0)::bigint,
		       coalesce(sum(pg_total_relation_size(oid)) FILTER (WHERE relkind = 'r'), 0)::bigint
		FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text IN ('shop', 'office', 'public')`).
		Scan(&f.tables, &f.rows, &f.bytes)
	if err != nil {
		return f, fmt.Errorf("measure the company's tables: %w", err)
	}
	return f, nil
}

// disconnect closes a connection whose context may have ended.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := conn.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return // it is closed all the same
	}
}
