package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// edit changes a file's content.
func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// firstFile is the path of a file with rows.
func firstFile(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data", "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	return files[0]
}

// TestDamagedBackup damages a backup in every way: it is refused, and the database is as it was, down to Syncline's own schema.
func TestDamagedBackup(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL, targetURL := source.Database(t), target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary := startPrimary(t, sourceURL)
	whole := filepath.Join(t.TempDir(), "backup")
	must(t, "dump", "--addr", primary.grpc, "--out", whole)
	conn := pgtest.Connect(t, targetURL)
	before := objects(t, conn)
	for _, test := range []struct {
		name   string
		damage func(t testing.TB, dir string)
		words  []string
	}{
		{"a bit", func(t testing.TB, dir string) {
			edit(t, firstFile(t, dir), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, []string{"damaged", "data/00001.000.copy.zst has another content"}},
		{"cut off", func(t testing.TB, dir string) {
			edit(t, firstFile(t, dir), func(b []byte) []byte { return b[:len(b)-1] })
		}, []string{"damaged", "bytes instead of"}},
		{"missing", func(t testing.TB, dir string) {
			if err := os.Remove(firstFile(t, dir)); err != nil {
				t.Fatal(err)
			}
		}, []string{"damaged", "data/00001.000.copy.zst is missing"}},
		{"swapped", func(t testing.TB, dir string) {
			first, other := filepath.Join(dir, "data/00001.000.copy.zst"), filepath.Join(dir, "data/00002.000.copy.zst")
			for _, names := range [][2]string{{first, first + "x"}, {other, first}, {first + "x", other}} {
				if err := os.Rename(names[0], names[1]); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"damaged", "data/00001.000.copy.zst", "data/00002.000.copy.zst"}},
		{"a link", func(t testing.TB, dir string) {
			if err := os.Rename(firstFile(t, dir), filepath.Join(dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../elsewhere", filepath.Join(dir, "data/00001.000.copy.zst")); err != nil {
				t.Fatal(err)
			}
		}, []string{"damaged", "no regular file"}},
		{"schema", func(t testing.TB, dir string) {
			edit(t, filepath.Join(dir, "schema.json"), func(b []byte) []byte { return bytes.Replace(b, []byte("items"), []byte("itemz"), 1) })
		}, []string{"damaged", "schema.json has another content"}},
		{"manifest edited", func(t testing.TB, dir string) {
			edit(t, filepath.Join(dir, "manifest.json"), func(b []byte) []byte {
				return regexp.MustCompile(`"lsn": "[^"]*"`).ReplaceAll(b, []byte(`"lsn": "0/1"`))
			})
		}, []string{"damaged", "was edited or damaged"}},
		{"manifest of another program", func(t testing.TB, dir string) {
			edit(t, filepath.Join(dir, "manifest.json"), func([]byte) []byte { return []byte(`{"version": 1}`) })
		}, []string{"damaged", "not a manifest with its checksum"}},
		{"no manifest", func(t testing.TB, dir string) {
			if err := os.Remove(filepath.Join(dir, "manifest.json")); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a backup", "no manifest.json"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "backup")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			test.damage(t, dir)
			wontRun(t, test.words, "restore", dir, "--postgres", targetURL, "--replace")
			wontRun(t, test.words, "backup", "check", dir)
		})
	}
	if after := objects(t, conn); !slices.Equal(before, after) {
		t.Errorf("the database has %v, before %v", after, before)
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_namespace WHERE nspname = 'syncline'"); n != 0 {
		t.Error("there is a schema syncline")
	}
}

// TestBackupRefused has backups that are whole and do not fit: the database, the source, or its change log.
func TestBackupRefused(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL, targetURL := source.Database(t), target.Database(t)
	conn, restored := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	pgtest.Exec(t, conn, shop)
	primary := startPrimary(t, sourceURL)
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	must(t, "dump", "--addr", primary.grpc, "--out", first)
	pgtest.Exec(t, conn, "DELETE FROM sales.orders WHERE id > 50")
	must(t, "dump", "--addr", primary.grpc, "--out", second)
	into := func(dir string, more ...string) []string {
		return append([]string{"restore", dir, "--postgres", targetURL}, more...)
	}
	wontRun(t, []string{"dump.partial", "it exists already"}, "dump", "--addr", primary.grpc, "--out", occupied(t))
	wontRun(t, []string{"table public.none does not exist"}, "dump", "--addr", primary.grpc, "--out", filepath.Join(t.TempDir(), "none"), "--table", "public.none")

	pgtest.Exec(t, restored, "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2)); INSERT INTO items VALUES (1000)")
	wontRun(t, []string{"already hold rows: public.items", "--replace"}, into(first)...)
	pgtest.Exec(t, restored, "ALTER TABLE items DROP COLUMN price")
	wontRun(t, []string{"public.items", "price"}, into(first, "--replace")...)
	pgtest.Exec(t, restored, "ALTER TABLE items ADD COLUMN price numeric(10,2)")
	newRole(t, restored, "restorer")
	role := asRole(t, targetURL, "restorer")
	wontRun(t, []string{"privileges are missing", "GRANT CREATE ON DATABASE", "GRANT SELECT, INSERT, DELETE, TRUNCATE ON TABLE"}, "restore", first, "--postgres", role, "--replace")
	if n := pgtest.QueryRow[int](t, restored, "SELECT id FROM items"); n != 1000 {
		t.Errorf("the row is %d", n)
	}

	pgtest.Exec(t, restored, "SELECT pg_advisory_lock($1::int, 0)", 0x73796e63+2) // as a restore does
	wontRun(t, []string{"another restore runs in this database"}, into(first, "--replace")...)
	pgtest.Exec(t, restored, "SELECT pg_advisory_unlock_all()")

	// A restore that broke off is not mixed with another backup, unless it is told to be replaced.
	killed(t, "restore/file-done", 1, into(first, "--replace")...)
	wontRun(t, []string{"the restore of another backup broke off", "--replace"}, into(second)...)
	killed(t, "restore/built", 1, into(second, "--replace")...)
	pgtest.Exec(t, restored, "UPDATE items SET name = 'meddled' WHERE id = 1")
	wontRun(t, []string{"public.items has 1 rows that the restore did not write", "--replace"}, into(second)...)
	pgtest.Exec(t, restored, "DELETE FROM sales.orders WHERE item = 1; DELETE FROM items WHERE id = 1")
	wontRun(t, []string{"public.items has 99 rows and the backup 100", "sales.orders has 49 rows and the backup 50"}, into(second)...)
	must(t, into(second, "--replace")...)
	pgtest.RequireEqual(t, sourceURL, targetURL)

	replica := startReplica(t, targetURL)
	fromRestore := func(s *applierv1.ReplicationSpec) { s.FromRestore = true }
	refused := func(address, reason string, words ...string) {
		t.Helper()
		_, err := replica.create("all", address, fromRestore)
		requireRefused(t, err, codes.FailedPrecondition, reason, words...)
	}
	_, err := replica.create("all", primary.grpc, fromRestore, replace)
	requireRefused(t, err, codes.InvalidArgument, "INVALID_FIELD", "from_restore")

	// Another server with the same tables.
	otherURL := source.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, otherURL), shop)
	other := startPrimary(t, otherURL, "--slot", "other", "--publication", "other")
	refused(other.grpc, "NO_RESTORE", "a backup of another server")

	// Rows that are not those of the backup.
	for statement, mend := range map[string][2]string{
		"UPDATE items SET name = name WHERE id = 1": {"items has 1 rows that were written since", ""},
		"INSERT INTO items VALUES (2000)":           {"items has 1 rows that were written since", ""},
		"DELETE FROM sales.orders WHERE id = 1":     {"sales.orders has 49 rows instead of 50", ""},
		"TRUNCATE sales.orders":                     {"sales.orders has 0 rows instead of 50", ""},
		"ALTER TABLE items RENAME TO things; CREATE TABLE items (LIKE things INCLUDING INDEXES)": {"items is another one", "DROP TABLE items; ALTER TABLE things RENAME TO items"},
	} {
		pgtest.Exec(t, restored, statement)
		pgtest.Exec(t, restored, "VACUUM (FREEZE) items, sales.orders")
		refused(primary.grpc, "RESTORED_TABLE_CHANGED", mend[0])
		if mend[1] != "" {
			pgtest.Exec(t, restored, mend[1])
		}
		must(t, into(second, "--replace")...)
	}

	// The change log does not reach back to the backup, or not so far, or is another one.
	for lsn, words := range map[string]string{"0/1": "change log begins at", "FF/0": "change log ends at"} {
		was := pgtest.QueryRow[string](t, restored, "SELECT lsn::text FROM syncline.restores ORDER BY started_at DESC LIMIT 1")
		pgtest.Exec(t, restored, "UPDATE syncline.restores SET lsn = $1::text::pg_lsn", lsn)
		refused(primary.grpc, "RESTORE_TOO_OLD", words)
		pgtest.Exec(t, restored, "UPDATE syncline.restores SET lsn = $1::text::pg_lsn", was)
	}
	primary.terminate(patience)
	pgtest.WaitSlotsIdle(t, conn)
	pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot('syncline')")
	primary.start()
	primary.waitHealthy(patience)
	primary.waitCapturing(patience)
	refused(primary.grpc, "RESTORE_TOO_OLD", "has begun another one since", "--replace")

	third := filepath.Join(t.TempDir(), "third")
	must(t, "dump", "--addr", primary.grpc, "--out", third)
	must(t, into(third, "--replace")...)
	pgtest.Exec(t, conn, "DROP TABLE sales.orders; CREATE TABLE sales.orders (id int PRIMARY KEY, item int NOT NULL, note text)")
	pgtest.Eventually(t, patience, func() error {
		_, err := replica.create("all", primary.grpc, fromRestore)
		if err == nil {
			t.Fatal("accepted")
		}
		if rpc.Reason(err) != "RESTORED_TABLE_CHANGED" {
			return err
		}
		return nil
	})
	replica.mustCreate("all", primary.grpc, fromRestore, include("public.*"))
	pgtest.Exec(t, conn, "UPDATE items SET price = 1 WHERE id < 20")
	replica.waitApplied("all", patience)
	pgtest.RequireEqualWith(t, sourceURL, targetURL, pgtest.CompareOptions{Except: []string{"sales.orders"}})
}

// occupied is the name of a backup whose partial name somebody else uses.
func occupied(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dump")
	if err := os.MkdirAll(filepath.Join(dir+".partial", "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
