package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// database makes a database that is prepared for a logger.
func database(t testing.TB) string {
	t.Helper()
	url := pgtest.Shared(t).Database(t)
	if _, err := node.Prepare(t.Context(), url, node.Primary); err != nil {
		t.Fatal(err)
	}
	return url
}

func config(t testing.TB, include, exclude, insertOnly []string) Config {
	t.Helper()
	selection, err := schema.ParseSelection(include, exclude)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "syncline", Select: selection, LockTimeout: 3 * time.Second}
	for _, text := range insertOnly {
		p, err := schema.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.InsertOnly = append(cfg.InsertOnly, p)
	}
	return cfg
}

// members is what a publication lists beside the announcements, sorted.
func members(t testing.TB, conn *pgx.Conn, publication string) string {
	t.Helper()
	return pgtest.QueryRow[string](t, conn, `
		SELECT coalesce(string_agg(n.nspname || '.' || c.relname, ' ' ORDER BY n.nspname, c.relname), '')
		FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1 AND c.oid <> 'syncline.announcements'::regclass`, publication)
}

func reconcile(t testing.TB, conn *pgx.Conn, cfg Config) State {
	t.Helper()
	state, err := Reconcile(t.Context(), conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func text[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, " ")
}

const tables = `
	CREATE TABLE keyed (id int PRIMARY KEY, v text);
	CREATE TABLE keyless (v text);
	CREATE TABLE full_identity (v text); ALTER TABLE full_identity REPLICA IDENTITY FULL;
	CREATE TABLE by_index (a int NOT NULL UNIQUE, v text); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a_key;
	CREATE TABLE index_gone (a int NOT NULL UNIQUE, v text); ALTER TABLE index_gone REPLICA IDENTITY USING INDEX index_gone_a_key;
	ALTER TABLE index_gone DROP CONSTRAINT index_gone_a_key;
	CREATE TABLE nothing (a int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
	CREATE TABLE deferred (a int PRIMARY KEY DEFERRABLE);
	CREATE TABLE generated_key (a int, b int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY);
	CREATE TABLE generated (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED);
	CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY);
	CREATE TEMPORARY TABLE temporary (a int PRIMARY KEY);
	CREATE MATERIALIZED VIEW view AS SELECT 1 AS a;
	CREATE SCHEMA "Odd ""Schema"; CREATE TABLE "Odd ""Schema"."a.b'c" (id int PRIMARY KEY);
	CREATE TABLE syncline.own (id int PRIMARY KEY);

	CREATE TABLE parted (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
	CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
	CREATE TABLE parted_2_a PARTITION OF parted_2 FOR VALUES IN (1);
	CREATE TABLE loose (id int, day int) PARTITION BY RANGE (day);
	CREATE TABLE loose_1 PARTITION OF loose FOR VALUES FROM (0) TO (10);
	CREATE TABLE loose_2 PARTITION OF loose FOR VALUES FROM (10) TO (20);
	ALTER TABLE loose_2 REPLICA IDENTITY FULL;
	CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);`

func TestWhatIsListed(t *testing.T) {
	conn := pgtest.Connect(t, database(t))
	pgtest.Exec(t, conn, tables)
	for _, c := range []struct {
		name                         string
		include, exclude, insertOnly []string
		full, inserts                string
		refused                      string
	}{
		{
			name:    "everything",
			full:    `Odd "Schema.a.b'c public.by_index public.child public.full_identity public.generated public.keyed public.loose_2 public.parent public.parted`,
			refused: "public.deferred public.generated_key public.index_gone public.keyless public.loose_1 public.nothing",
		},
		{
			name:    "included, a partition left out",
			include: []string{"public.parted", "public.keyed"}, exclude: []string{"public.parted_1"},
			full: "public.keyed public.parted_2",
		},
		{
			name:       "inserts only",
			include:    []string{"public.loose", "public.key*"},
			insertOnly: []string{"public.loose", "public.keyless"},
			full:       "public.keyed", inserts: "public.keyless public.loose",
		},
		{
			name:       "inserts only for one partition",
			include:    []string{"public.parted"},
			insertOnly: []string{"public.parted_2_a"},
			full:       "public.parted_1", inserts: "public.parted_2_a",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t, c.include, c.exclude, c.insertOnly)
			checked, err := Check(t.Context(), conn, cfg, conn.Config().User)
			if err != nil {
				t.Fatal(err)
			}
			if err := Prepare(t.Context(), conn, cfg); err != nil {
				t.Fatal(err)
			}
			state := reconcile(t, conn, cfg)
			if got := members(t, conn, "syncline"); got != c.full {
				t.Errorf("lists\n%s, want\n%s", got, c.full)
			}
			if got := members(t, conn, "syncline_insert"); got != c.inserts {
				t.Errorf("lists for inserts\n%s, want\n%s", got, c.inserts)
			}
			var refused []schema.Name
			for _, r := range state.Refused {
				refused = append(refused, r.Table)
			}
			if got := text(refused); got != c.refused {
				t.Errorf("refused %s, want %s", got, c.refused)
			}
			if text(state.Captured) != text(checked.Captured) || text(state.Refused) != text(checked.Refused) {
				t.Errorf("check said %v and %v, done is %v and %v", checked.Captured, checked.Refused, state.Captured, state.Refused)
			}
			if again := reconcile(t, conn, cfg); again.Listed != nil || again.Removed != nil || again.Pending != nil {
				t.Errorf("a second call changed %v %v, pending %v", again.Listed, again.Removed, again.Pending)
			}
		})
	}
}

// TestNoStatementFails runs every kind of statement on every kind of table, also where a table changes its kind.
func TestNoStatementFails(t *testing.T) {
	conn := pgtest.Connect(t, database(t))
	pgtest.Exec(t, conn, tables)
	// PostgreSQL 18 would refuse to change its rows if it were published.
	pgtest.Exec(t, conn, `CREATE TABLE full_generated (a int, b int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE full_generated REPLICA IDENTITY FULL;
		CREATE TABLE turns_full (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED)`)
	pgtest.Exec(t, conn, "SET search_path = public, syncline") // a table is moved between them below
	cfg := config(t, nil, nil, []string{"public.loose"})
	if err := Prepare(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	writeAll := func() {
		t.Helper()
		for _, name := range []string{
			"keyed", "keyless", "full_identity", "by_index", "index_gone", "nothing", "deferred", "generated_key", "generated",
			"unlogged", "full_generated", "turns_full", "pg_temp.temporary", "parted", "loose", "parent", "child", `"Odd ""Schema"."a.b'c"`, "own",
		} {
			column := pgtest.QueryRow[string](t, conn, `SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0
				AND NOT attisdropped ORDER BY attnum LIMIT 1`, name)
			switch name {
			case "parted", "loose":
				pgtest.Exec(t, conn, "INSERT INTO "+name+" VALUES (1, 5), (1, 15)")
			default:
				pgtest.Exec(t, conn, fmt.Sprintf("INSERT INTO %s (%s) VALUES ('1')", name, column))
			}
			pgtest.Exec(t, conn, fmt.Sprintf("UPDATE %s SET %s = %s", name, column, column))
			pgtest.Exec(t, conn, fmt.Sprintf("DELETE FROM %s", name))
			pgtest.Exec(t, conn, fmt.Sprintf("TRUNCATE %s", name))
		}
	}
	writeAll()
	reconcile(t, conn, cfg)
	writeAll()
	for _, ddl := range []string{
		"ALTER TABLE keyed DROP CONSTRAINT keyed_pkey",
		"ALTER TABLE by_index DROP CONSTRAINT by_index_a_key",
		"ALTER TABLE full_identity REPLICA IDENTITY DEFAULT",
		"ALTER TABLE parted_1 REPLICA IDENTITY NOTHING",
		"ALTER TABLE parted DROP CONSTRAINT parted_pkey",
		"CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (20) TO (30)",
		"ALTER TABLE keyed ADD PRIMARY KEY (id)",
		"DROP TABLE parted_1; CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
		"ALTER TABLE keyless REPLICA IDENTITY FULL",
		"ALTER TABLE turns_full REPLICA IDENTITY FULL",
		"ALTER TABLE generated SET SCHEMA syncline; ALTER TABLE syncline.generated DROP CONSTRAINT generated_pkey; ALTER TABLE syncline.own SET SCHEMA public",
		"ALTER TABLE public.own SET SCHEMA syncline; ALTER TABLE syncline.generated SET SCHEMA public",
	} {
		pgtest.Exec(t, conn, ddl)
		state := reconcile(t, conn, cfg)
		if state.Pending != nil {
			t.Errorf("after %s pending: %v", ddl, state.Pending)
		}
		writeAll()
	}
}

// TestBusyTableWaits holds a lock on one table: the others are published meanwhile, and nobody waits behind us.
func TestBusyTableWaits(t *testing.T) {
	url := database(t)
	conn, holder, writer := pgtest.Connect(t, url), pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)")
	cfg := config(t, nil, nil, nil)
	cfg.LockTimeout = 100 * time.Millisecond
	if err := Prepare(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, holder, "BEGIN; LOCK TABLE b IN SHARE UPDATE EXCLUSIVE MODE")
	state := reconcile(t, conn, cfg)
	if len(state.Pending) != 1 || !strings.Contains(state.Pending[0], "public.b") {
		t.Errorf("pending: %v", state.Pending)
	}
	if got := members(t, conn, "syncline"); got != "public.a public.c" || text(state.Captured) != got {
		t.Errorf("lists %s, says %v", got, state.Captured)
	}
	pgtest.Exec(t, writer, "INSERT INTO b VALUES (1)")
	pgtest.Exec(t, holder, "COMMIT")
	if state = reconcile(t, conn, cfg); state.Pending != nil || members(t, conn, "syncline") != "public.a public.b public.c" {
		t.Errorf("pending %v, lists %s", state.Pending, members(t, conn, "syncline"))
	}
}

func TestChangesAreAnnounced(t *testing.T) {
	conn := pgtest.Connect(t, database(t))
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int)")
	cfg := config(t, nil, nil, []string{"public.b"})
	if err := Prepare(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, conn, "SELECT pg_create_logical_replication_slot('announced_' || pg_backend_pid(), 'pgoutput', true)")
	announced := func() (list []Announcement) {
		rows, err := conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes('announced_' || pg_backend_pid(), NULL, NULL,
			'proto_version', '1', 'publication_names', 'syncline,syncline_insert', 'messages', 'true')`)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			t.Fatal(err)
		}
		return announcementsIn(t, raw)
	}
	state := reconcile(t, conn, cfg)
	if text(state.Listed) != "public.a public.b" {
		t.Errorf("listed %v", state.Listed)
	}
	got := announced()
	if len(got) != 1 || len(got[0].Captured) != 1 || got[0].Captured[0].Name != "a" || len(got[0].InsertOnly) != 1 || got[0].InsertOnly[0].Name != "b" {
		t.Errorf("announced %+v", got)
	}
	pgtest.Exec(t, conn, "ALTER TABLE a DROP CONSTRAINT a_pkey")
	if state = reconcile(t, conn, cfg); text(state.Removed) != "public.a" || len(state.Refused) != 1 {
		t.Errorf("removed %v, refused %v", state.Removed, state.Refused)
	}
	if got = announced(); len(got) != 1 || len(got[0].Removed) != 1 || got[0].Removed[0].Name != "a" {
		t.Errorf("announced %+v", got)
	}
	// Somebody else's hand in the publication is mended, and announced like everything else.
	pgtest.Exec(t, conn, "ALTER PUBLICATION syncline_insert DROP TABLE b")
	reconcile(t, conn, cfg)
	if got = announced(); len(got) != 1 || len(got[0].InsertOnly) != 1 {
		t.Errorf("announced %+v", got)
	}
	for _, other := range []string{"b WHERE (id > 5)", "b WHERE (id > 5), syncline.announcements", "b WHERE (id > 5), syncline.announcements WHERE (false)"} {
		pgtest.Exec(t, conn, "ALTER PUBLICATION syncline_insert SET TABLE "+other)
		reconcile(t, conn, cfg)
		if got = announced(); len(got) != 1 || len(got[0].InsertOnly) != 1 {
			t.Errorf("after %s announced %+v", other, got)
		}
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM syncline.announcements"); n != 0 {
		t.Errorf("%d announcements are left in the table", n)
	}
}

// TestGuardAnnounces takes an identity away where the guard is, also when somebody has taken the announcements out of the
// publication.
func TestGuardAnnounces(t *testing.T) {
	conn := pgtest.Connect(t, database(t))
	pgtest.Exec(t, conn, `CREATE TABLE parted (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
		CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)`)
	cfg := config(t, nil, nil, nil)
	if err := Prepare(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	reconcile(t, conn, cfg)
	if there, err := Guard(t.Context(), conn, cfg); err != nil || !there {
		t.Fatal(there, err)
	}
	for _, before := range []string{"SELECT 1", "ALTER PUBLICATION syncline_insert DROP TABLE syncline.announcements"} {
		pgtest.Exec(t, conn, before)
		pgtest.Exec(t, conn, "SELECT pg_create_logical_replication_slot('guarded_' || pg_backend_pid(), 'pgoutput')")
		pgtest.Exec(t, conn, "BEGIN; ALTER TABLE parted_1 REPLICA IDENTITY NOTHING; UPDATE parted SET id = 1; COMMIT")
		rows, err := conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes('guarded_' || pg_backend_pid(), NULL, NULL,
			'proto_version', '1', 'publication_names', 'syncline,syncline_insert')`)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			t.Fatal(err)
		}
		got := announcementsIn(t, raw)
		if len(got) != 1 || len(got[0].Removed) != 1 || got[0].Removed[0].Name != "parted" || len(got[0].Captured) != 1 || got[0].Captured[0].Name != "parted_2" {
			t.Errorf("after %s announced %+v", before, got)
		}
		pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot('guarded_' || pg_backend_pid())")
		pgtest.Exec(t, conn, "ALTER TABLE parted_1 REPLICA IDENTITY DEFAULT")
		reconcile(t, conn, cfg)
	}
}

// announcementsIn decodes what a slot of both publications delivers.
func announcementsIn(t testing.TB, messages [][]byte) (list []Announcement) {
	t.Helper()
	var d pgoutput.Decoder
	var oid uint32
	for _, data := range messages {
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case kind == pgoutput.KindRelation && d.Relation.Schema == Announcements.Schema && d.Relation.Name == Announcements.Name:
			oid = d.Relation.OID
		case kind == pgoutput.KindInsert && d.Insert.RelationOID == oid:
			columns := d.Insert.New.Columns()
			if _, name := columns.Next(); string(name) != "syncline" {
				t.Errorf("announced for publication %s", name)
			}
			_, content := columns.Next()
			var a Announcement
			if err := json.Unmarshal(content, &a); err != nil {
				t.Fatal(err)
			}
			list = append(list, a)
		case kind == pgoutput.KindUpdate || kind == pgoutput.KindDelete || kind == pgoutput.KindMessage:
			t.Errorf("a %v is in the stream", kind)
		}
	}
	return list
}

func TestRefusalTellsTheWaysOut(t *testing.T) {
	conn := pgtest.Connect(t, database(t))
	pgtest.Exec(t, conn, `CREATE TABLE "No Key" (id int)`)
	state, err := Check(t.Context(), conn, config(t, nil, nil, nil), conn.Config().User)
	if err != nil || len(state.Refused) != 1 {
		t.Fatal(err, state.Refused)
	}
	want := `table public."No Key" is not captured: it has no primary key; ALTER TABLE "public"."No Key" REPLICA IDENTITY FULL, ` +
		`or leave it out with --exclude-table 'public."No Key"', or capture its inserts only with --insert-only-table 'public."No Key"'`
	if got := state.Refused[0].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCheckRefuses(t *testing.T) {
	url := database(t)
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	role := "plain_" + pgtest.QueryRow[string](t, conn, "SELECT pg_backend_pid()::text")
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY); CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})

	var unknown *UnknownTablesError
	_, err = Check(t.Context(), conn, config(t, []string{"public.nope", "public.a", "public.x*"}, nil, []string{"public.neither"}), conn.Config().User)
	if !errors.As(err, &unknown) || !slices.Equal(unknown.Names, []string{"public.nope", "public.neither"}) {
		t.Errorf("unknown tables: %v", err)
	}

	pgtest.Exec(t, conn, "CREATE PUBLICATION syncline FOR ALL TABLES")
	if _, err := Check(t.Context(), conn, config(t, nil, nil, nil), conn.Config().User); !errors.Is(err, ErrForeignPublication) {
		t.Errorf("publication for all tables: %v", err)
	}
	pgtest.Exec(t, conn, "DROP PUBLICATION syncline")

	// A role that does not own the table.
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User = role
	plain, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close(t.Context())
	if _, err := Check(t.Context(), plain, config(t, nil, nil, nil), plain.Config().User); !errors.Is(err, ErrForeignPublication) || !strings.Contains(err.Error(), `GRANT "postgres" TO "`+role+`"`) {
		t.Errorf("announcements of somebody else: %v", err)
	}
	pgtest.Exec(t, conn, "ALTER TABLE syncline.announcements OWNER TO "+role)
	state, err := Check(t.Context(), plain, config(t, nil, nil, nil), plain.Config().User)
	if err != nil || len(state.Refused) != 1 || !strings.Contains(state.Refused[0].Mend, `GRANT "`) || state.Captured != nil {
		t.Errorf("not owned: %v, %v", err, state)
	}
}
