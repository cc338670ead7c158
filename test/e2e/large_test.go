package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// largeVariable asks for the tests that take much time and disk. Without it they are not even listed.
const largeVariable = "SYNCLINE_LARGE"

// The bound of each process: resident memory at most, plus a multiple of the largest row.
const (
	residentBound = 300 << 20
	rowMultiple   = 5
)

// TestLarge measures memory with a table of 5 GB, transactions of 5 million rows and values of 64 MiB, and what followers
// cost the primary. It prints a table of figures.
func TestLarge(t *testing.T) {
	if os.Getenv(largeVariable) == "" {
		return
	}
	requireDisk(t, 40<<30)
	t.Run("table", largeTable)
	t.Run("values", largeValues)
	t.Run("followers", eightFollowers)
}

// requireDisk fails when the temporary directory has less room than the tests take.
func requireDisk(t testing.TB, need uint64) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(os.TempDir(), &fs); err != nil {
		t.Fatal(err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		t.Fatalf("%s has %d GiB free, and this test takes up to %d GiB", os.TempDir(), free>>30, need>>30)
	}
}

// figures is the table that is printed at the end.
type figures struct {
	t     testing.TB
	lines []string
}

func (f *figures) add(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	f.lines = append(f.lines, line)
	f.t.Log(strings.ReplaceAll(line, "\t", "  "))
}

func (f *figures) print() {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(f.lines, "\n"))
	_ = w.Flush()
	f.t.Log("\n" + b.String())
}

// trio is a primary and a replica as three processes: what one of them holds does not hide behind another.
type trio struct {
	logger, inventory, applier *node
	figures                    *figures
}

func startTrio(t testing.TB, sourceURL, targetURL string, loggerFlags ...string) *trio {
	t.Helper()
	c := &trio{
		logger: newNode(t, "logger", append([]string{"--postgres", sourceURL, "--data", t.TempDir(), "--pprof"}, loggerFlags...)...),
		figures: &figures{t: t, lines: []string{
			"step\tseconds\tlogger\tinventory\tapplier\tbound (peak resident MiB)",
		}},
	}
	c.inventory = newNode(t, "inventory", "--postgres", sourceURL, "--logger", c.logger.grpc, "--pprof")
	c.logger.args = append(c.logger.args, "--inventory", c.inventory.grpc)
	c.applier = newNode(t, "applier", "--postgres", targetURL, "--pprof")
	for _, n := range c.nodes() {
		n.start()
		n.waitHealthy(time.Minute)
	}
	return c
}

func (c *trio) nodes() []*node { return []*node{c.logger, c.inventory, c.applier} }

// measure runs a step and takes each process' peak of resident memory during it.
func (c *trio) measure(t testing.TB, name string, largestRow int64, step func()) {
	t.Helper()
	for _, n := range c.nodes() {
		n.forgetPeak()
	}
	began := time.Now()
	step()
	seconds := time.Since(began).Seconds()
	bound := residentBound + rowMultiple*largestRow
	cells := make([]string, 0, 3)
	for _, n := range c.nodes() {
		peak := n.peakResident()
		cells = append(cells, fmt.Sprint(peak>>20))
		if peak > bound {
			t.Errorf("%s: %s took %d MiB, and %d MiB is the bound", name, n.name, peak>>20, bound>>20)
		}
	}
	c.figures.add("%s\t%.0f\t%s\t%d", name, seconds, strings.Join(cells, "\t"), bound>>20)
}

// forgetPeak has the kernel begin a new peak at what is resident now.
func (n *node) forgetPeak() {
	n.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", n.pid()), []byte("5"), 0); err != nil {
		n.t.Fatal(err)
	}
}

// peakResident is the most memory that the process has had resident since forgetPeak, in bytes.
func (n *node) peakResident() int64 {
	n.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid()))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	n.t.Fatalf("no VmHWM in %s", status)
	return 0
}

// largeServers are fast rather than safe, and do not keep more WAL than they need.
func largeServers(t testing.TB) (source, target *pgtest.Server) {
	t.Helper()
	options := []pgtest.Option{
		pgtest.WithFsync(false), pgtest.WithSetting("max_wal_size", "2GB"), pgtest.WithSetting("shared_buffers", "256MB"),
		pgtest.WithSetting("checkpoint_timeout", "1h"), pgtest.WithSetting("autovacuum", "off"),
	}
	return newSource(t, options...), newTarget(t, options...)
}

const largeWait = 30 * time.Minute

// largeTable copies a table of 5 GB, and then carries transactions of 5 million rows.
func largeTable(t *testing.T) {
	source, target := largeServers(t)
	sourceURL, targetURL := source.Database(t), target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	began := time.Now()
	// Rows of 1 KiB stay in the table itself and are not compressed.
	pgtest.Exec(t, conn, `CREATE TABLE big (id bigint PRIMARY KEY, filler text NOT NULL, at timestamptz DEFAULT now());
		CREATE TABLE many (id bigint PRIMARY KEY, amount numeric(12,2), note text)`)
	for part := range 5 {
		pgtest.Exec(t, conn, `INSERT INTO big SELECT n, repeat(md5(n::text), 32) FROM generate_series($1::bigint, $2) n`, part*1_000_000+1, (part+1)*1_000_000)
	}
	size := pgtest.QueryRow[int64](t, conn, "SELECT pg_table_size('big')")
	t.Logf("a table of %.1f GB is made in %v", float64(size)/1e9, time.Since(began).Round(time.Second))
	if size < 5e9 {
		t.Fatalf("the table has only %d bytes", size)
	}
	c := startTrio(t, sourceURL, targetURL)
	defer c.figures.print()
	c.measure(t, fmt.Sprintf("copy of a table of %.1f GB", float64(size)/1e9), 0, func() {
		c.applier.mustCreate("all", c.logger.grpc)
		c.applier.waitApplied("all", largeWait)
	})
	carry := func(name, sql string, rows int64) {
		c.measure(t, name, 0, func() {
			tag, err := conn.Exec(t.Context(), sql)
			if err != nil || tag.RowsAffected() != rows {
				t.Fatalf("%s: %v, %v", sql, tag, err)
			}
			c.applier.waitApplied("all", largeWait)
		})
	}
	const rows = 5_000_000
	carry("insert of 5 million rows", "INSERT INTO many SELECT n, n * 0.01, 'note of row ' || n FROM generate_series(1, 5000000) n", rows)
	carry("update of 5 million rows", "UPDATE many SET amount = amount + 1", rows)
	carry("update of 5 million keys", "UPDATE many SET id = -id", rows)
	carry("delete of 5 million rows", "DELETE FROM many WHERE id % 1000 <> 0", rows-rows/1000)
	c.measure(t, "5,000 transactions of 1,000 rows", 0, func() {
		for n := range 5_000 {
			pgtest.Exec(t, conn, "INSERT INTO many SELECT n, 1, 'small' FROM generate_series($1::bigint, $2) n", 1+n*1000, (n+1)*1000)
		}
		c.applier.waitApplied("all", largeWait)
	})
	began = time.Now()
	pgtest.RequireEqual(t, sourceURL, targetURL)
	t.Logf("all rows compared in %v", time.Since(began).Round(time.Second))
}

// largeValues carries values of 64 MiB, in the copy and in the stream.
func largeValues(t *testing.T) {
	const value = 64 << 20
	source, target := largeServers(t)
	sourceURL, targetURL := source.Database(t), target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, `CREATE TABLE wide (id int PRIMARY KEY, counter int DEFAULT 0, words text, data bytea);
		ALTER TABLE wide ALTER words SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL`)
	const words = "(SELECT string_agg(md5(n::text), '') FROM generate_series($1::int, $1 + 2097151) n)"
	const data = "(SELECT string_agg(decode(md5(n::text), 'hex'), '') FROM generate_series($1::int, $1 + 4194303) n)"
	insertWords := func(id int) { pgtest.Exec(t, conn, "INSERT INTO wide (id, words) SELECT $1, "+words, id) }
	insertData := func(id int) { pgtest.Exec(t, conn, "INSERT INTO wide (id, data) SELECT $1, "+data, id) }
	insertWords(1)
	insertData(2)
	if least := pgtest.QueryRow[int](t, conn, "SELECT min(coalesce(octet_length(words), octet_length(data))) FROM wide"); least != value {
		t.Fatalf("a value has %d bytes instead of %d", least, value)
	}
	c := startTrio(t, sourceURL, targetURL)
	defer c.figures.print()
	step := func(name string, f func()) {
		c.measure(t, name, value, func() {
			f()
			c.applier.waitApplied("all", largeWait)
		})
	}
	step("copy of a text and a bytea of 64 MiB", func() { c.applier.mustCreate("all", c.logger.grpc) })
	step("insert of a text of 64 MiB", func() { insertWords(3) })
	step("insert of a bytea of 64 MiB", func() { insertData(4) })
	step("update beside values of 64 MiB", func() { pgtest.Exec(t, conn, "UPDATE wide SET counter = counter + 1") })
	step("update of a text of 64 MiB", func() { pgtest.Exec(t, conn, "UPDATE wide SET words = reverse(words) WHERE id = 3") })
	step("eight inserts of 64 MiB in a transaction", func() {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for id := 10; id < 18; id++ {
			if _, err := tx.Exec(t.Context(), "INSERT INTO wide (id, words) SELECT $1, "+words, id); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	pgtest.Exec(t, conn, "ALTER TABLE wide REPLICA IDENTITY FULL")
	step("update with the whole old row", func() { pgtest.Exec(t, conn, "UPDATE wide SET counter = counter + 1 WHERE id IN (3, 4)") })
	step("delete with the whole old row", func() { pgtest.Exec(t, conn, "DELETE FROM wide WHERE id IN (3, 4, 11)") })
	requireSameValues(t, conn, pgtest.Connect(t, targetURL))
}

// requireSameValues compares the wide rows by their digests, so that this process stays small.
func requireSameValues(t testing.TB, source, target *pgx.Conn) {
	t.Helper()
	const digest = "SELECT string_agg(concat_ws(':', id, counter, md5(words), md5(data)), ' ' ORDER BY id) FROM wide"
	if a, b := pgtest.QueryRow[string](t, source, digest), pgtest.QueryRow[string](t, target, digest); a != b {
		t.Errorf("the rows differ:\n%s\n%s", a, b)
	}
}
