package logger

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func (i *instance) updated(t testing.TB, request *loggerv1.ListUpdatedSinceRequest) *loggerv1.ListUpdatedSinceResponse {
	t.Helper()
	answer, err := i.client.ListUpdatedSince(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// updatedText is an entry as the tests write it.
func updatedText(u *loggerv1.Updated) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s.%s", strings.ToLower(strings.TrimPrefix(u.GetAction().String(), "ACTION_")), u.GetSchema(), u.GetTable())
	for _, k := range u.GetKey() {
		switch {
		case k.Value == nil:
			fmt.Fprintf(&b, " %s", k.GetName())
		case k.GetCutBytes() > 0:
			fmt.Fprintf(&b, " %s=%d cut to %d", k.GetName(), k.GetCutBytes(), len(k.GetValue()))
		default:
			fmt.Fprintf(&b, " %s=%s", k.GetName(), k.GetValue())
		}
	}
	return b.String()
}

// TestUpdatedSince has each kind of action on each kind of table.
func TestUpdatedSince(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE two (x int, y text, v int, PRIMARY KEY (y, x));
		CREATE TABLE whole (v text, w text); ALTER TABLE whole REPLICA IDENTITY FULL; CREATE TABLE lines (n int, v text);
		CREATE TABLE parted (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)`)
	cfg := testConfig(t, url)
	cfg.InsertOnly = []string{"public.lines"}
	i := start(t, cfg)
	i.waitCapturing(t)
	since := i.barrier(t)
	list := func(tables ...string) string {
		t.Helper()
		i.barrier(t)
		answer := i.updated(t, &loggerv1.ListUpdatedSinceRequest{Position: since, IncludeTables: tables})
		if answer.GetNextPageToken() != "" || answer.GetTransactionContinues() || answer.GetThrough().GetLsn() != answer.GetEnd().GetLsn() {
			t.Errorf("not the last page: %v", answer)
		}
		var texts []string
		for _, u := range answer.GetUpdates() {
			texts = append(texts, updatedText(u))
			if u.GetLsn() <= since.GetLsn() || u.GetLsn() > answer.GetThrough().GetLsn() || u.GetCommitTime().AsTime().Year() < 2020 {
				t.Errorf("%v", u)
			}
		}
		since = answer.GetThrough()
		return strings.Join(texts, "; ")
	}
	for _, c := range []struct{ sql, tables, want string }{
		{"SELECT 1", "", ""},
		{"INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, NULL)", "", "create public.a id=1; create public.a id=2; create public.a id=3"},
		{"UPDATE a SET v = 'z' WHERE id = 1", "", "update public.a id=1"},
		{"UPDATE a SET id = 10 WHERE id = 1", "", "delete public.a id=1; create public.a id=10"},
		{"DELETE FROM a WHERE id = 10; INSERT INTO a VALUES (10)", "", "create public.a id=10"},
		{"INSERT INTO a VALUES (11); DELETE FROM a WHERE id = 11; UPDATE a SET v = 'k' WHERE id = 2", "", "delete public.a id=11; update public.a id=2"},
		{"INSERT INTO a VALUES (12); TRUNCATE a; INSERT INTO a VALUES (13)", "", "truncate public.a; create public.a id=13"},
		{"INSERT INTO two VALUES (1, 'é''\" ', 5)", "", `create public.two x=1 y=é'" `},
		{"INSERT INTO whole VALUES ('a', NULL), ('a', NULL)", "", "create public.whole v=a w"},
		{"UPDATE whole SET w = repeat('w', 5000)", "", "delete public.whole v=a w; create public.whole v=a w=5000 cut to 4096"},
		{"DELETE FROM whole", "", "delete public.whole v=a w=5000 cut to 4096"},
		{"INSERT INTO lines VALUES (1, 'x'); UPDATE lines SET n = 2; DELETE FROM lines", "", "create public.lines n=1 v=x"},
		{"INSERT INTO parted VALUES (1, 5), (2, 15)", "", "create public.parted_1 id=1 day=5; create public.parted_2 id=2 day=15"},
		{"UPDATE parted SET day = 16 WHERE id = 1", "", "delete public.parted_1 id=1 day=5; create public.parted_2 id=1 day=16"},
		{"INSERT INTO a VALUES (20); INSERT INTO parted VALUES (3, 3); INSERT INTO whole VALUES ('q', 'r')", "public.parted", "create public.parted_1 id=3 day=3"},
		{"INSERT INTO a VALUES (21); INSERT INTO parted VALUES (4, 4), (5, 15)", "public.*_2", "create public.parted_2 id=5 day=15"},
	} {
		for statement := range strings.SplitSeq(c.sql, "; ") {
			pgtest.Exec(t, conn, statement)
		}
		var tables []string
		if c.tables != "" {
			tables = []string{c.tables}
		}
		if got := list(tables...); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.sql, got, c.want)
		}
	}
}

// TestUpdatedPages walks through a random history with pages of random sizes, and keeps what it is told: in the end that is exactly what
// the tables hold. Among the transactions are some that no page can hold.
func TestUpdatedPages(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	since := i.barrier(t)
	r := seed(t)
	for n := range 150 {
		table := []string{"a", "b"}[r.IntN(2)]
		sql := map[int]string{
			0: "DELETE FROM %[1]s WHERE id %% 7 = %[2]d %% 7", 1: "UPDATE %[1]s SET v = 'u' || %[2]d WHERE id %% 5 = %[2]d %% 5",
			2: "UPDATE %[1]s SET id = -id WHERE id %% 11 = %[2]d %% 11", 3: "TRUNCATE %[1]s",
		}[r.IntN(12)]
		switch {
		case sql == "":
			sql = "INSERT INTO %[1]s SELECT n, 'i' FROM generate_series(%[2]d * 40, %[2]d * 40 + 60) n ON CONFLICT DO NOTHING"
		case n%50 == 49:
			sql = "INSERT INTO %[1]s SELECT n, 'big' FROM generate_series(100000 + %[2]d * 30000, 125000 + %[2]d * 30000) n"
		}
		pgtest.Exec(t, conn, fmt.Sprintf(sql, table, n))
	}
	pgtest.Exec(t, conn, "INSERT INTO b SELECT n, repeat('v', 100) FROM generate_series(1000000, 1025000) n")
	end := i.barrier(t)
	known := map[string]bool{}
	request := &loggerv1.ListUpdatedSinceRequest{Position: since}
	pages, cut, from := 0, 0, since
	for {
		request.PageSize = []int32{1, 0, 7, 500, 10000}[r.IntN(5)]
		answer := i.updated(t, request)
		pages++
		if answer.GetFrom().GetLsn() != from.GetLsn() || answer.GetThrough().GetLsn() < from.GetLsn() {
			t.Fatalf("page %d covers %v to %v, after %v", pages, answer.GetFrom(), answer.GetThrough(), from)
		}
		from = answer.GetThrough()
		last, once := uint64(0), map[string]bool{}
		for _, u := range answer.GetUpdates() {
			key := fmt.Sprint(u.GetTable(), u.GetKey())
			if once[key] || u.GetLsn() < last || u.GetLsn() <= answer.GetFrom().GetLsn() || u.GetLsn() > from.GetLsn() && !answer.GetTransactionContinues() {
				t.Fatalf("page %d, from %v through %v: %v after %v", pages, answer.GetFrom(), from, u, last)
			}
			once[key], last = true, u.GetLsn()
			row := u.GetTable() + " "
			if len(u.GetKey()) > 0 {
				row += u.GetKey()[0].GetValue()
			}
			switch u.GetAction() {
			case loggerv1.Action_ACTION_TRUNCATE:
				maps.DeleteFunc(known, func(other string, _ bool) bool { return strings.HasPrefix(other, row) })
			case loggerv1.Action_ACTION_DELETE:
				delete(known, row)
			default:
				known[row] = true
			}
		}
		if answer.GetTransactionContinues() {
			cut++
			if len(answer.GetUpdates()) > maxPageSize+1 {
				t.Errorf("a page has %d keys", len(answer.GetUpdates()))
			}
		}
		if answer.GetNextPageToken() == "" {
			break
		}
		request.PageToken = answer.GetNextPageToken()
	}
	if from.GetLsn() < end.GetLsn() || cut == 0 || pages < 3 {
		t.Errorf("%d pages, %d of them end inside a transaction, up to %v", pages, cut, from)
	}
	rows, err := conn.Query(t.Context(), "SELECT 'a ' || id FROM a UNION ALL SELECT 'b ' || id FROM b")
	if err != nil {
		t.Fatal(err)
	}
	want, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(known)); !slices.Equal(got, want) {
		t.Errorf("%d keys are known, and there are %d", len(got), len(want))
	}
	t.Logf("%d pages, %d of them end inside a transaction; %d keys", pages, cut, len(want))
}

// TestUpdatedRefuses asks for what there is not.
func TestUpdatedRefuses(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id serial PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	since := i.barrier(t)
	pgtest.Exec(t, conn, "INSERT INTO a (v) SELECT repeat('x', 100) FROM generate_series(1, 30000)")
	pgtest.Exec(t, conn, "INSERT INTO a (v) VALUES ('y')")
	end := i.barrier(t)
	first := i.updated(t, &loggerv1.ListUpdatedSinceRequest{Position: since})
	if !first.GetTransactionContinues() {
		t.Fatalf("page %v to %v", first.GetFrom(), first.GetThrough())
	}
	boundary := i.updated(t, &loggerv1.ListUpdatedSinceRequest{Position: since, PageSize: 1, ExcludeTables: []string{"public.a"}})
	if len(boundary.GetUpdates()) != 0 || boundary.GetNextPageToken() != "" {
		t.Errorf("of no table: %v", boundary)
	}
	ask := func(code codes.Code, reason string, request *loggerv1.ListUpdatedSinceRequest) {
		t.Helper()
		_, err := i.client.ListUpdatedSince(t.Context(), request)
		if rpc.Code(err) != code || rpc.Reason(err) != reason {
			t.Errorf("%v: %v", request, err)
		}
	}
	for _, request := range []*loggerv1.ListUpdatedSinceRequest{
		{},
		{Position: &changev1.Position{LogId: since.GetLogId()}},
		{Position: since, PageSize: -1},
		{Position: since, PageSize: maxPageSize + 1},
		{Position: since, IncludeTables: []string{"a"}},
		{Position: since, ExcludeTables: []string{"a.b.c"}},
		{PageToken: "none"},
		{PageToken: "e30"},
		{PageToken: first.GetNextPageToken()[1:]},
		{PageToken: first.GetNextPageToken(), IncludeTables: []string{"public.a"}},
		{PageToken: (&pageToken{Log: since.GetLogId(), From: 1 << 40, End: 1, Tables: selectionDigest(nil, &set{})}).String()},
		{PageToken: (&pageToken{Log: since.GetLogId(), From: change.LSN(since.GetLsn()), End: 1 << 60, Tables: selectionDigest(nil, &set{})}).String()},
		{PageToken: (&pageToken{Log: since.GetLogId(), From: change.LSN(since.GetLsn()), End: change.LSN(end.GetLsn()), Tables: selectionDigest(nil, &set{}), Inside: &insideToken{Block: 1 << 50}}).String()},
	} {
		ask(codes.InvalidArgument, rpc.ReasonInvalid, request)
	}
	ask(codes.OutOfRange, ReasonPositionAhead, &loggerv1.ListUpdatedSinceRequest{Position: &changev1.Position{LogId: end.GetLogId(), Lsn: end.GetLsn() + 1<<40}})
	ask(codes.OutOfRange, ReasonPositionTooOld, &loggerv1.ListUpdatedSinceRequest{Position: &changev1.Position{LogId: end.GetLogId(), Lsn: 8}})
	ask(codes.OutOfRange, ReasonLogIDMismatch, &loggerv1.ListUpdatedSinceRequest{Position: &changev1.Position{LogId: strings.Repeat("0", 31) + "1", Lsn: 8}})
	// What is purged between two pages is an error, never passed over.
	i.configure(t, &loggerv1.LoggerConfig{MaxBytes: 1}, "max_bytes")
	ask(codes.OutOfRange, ReasonPositionTooOld, &loggerv1.ListUpdatedSinceRequest{PageToken: first.GetNextPageToken()})
}

// TestUpdatedOfASet lists what a set shows of the changes, and nothing else. The whole row is the key of a table with REPLICA IDENTITY FULL.
func TestUpdatedOfASet(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE a (id int PRIMARY KEY, org text, v text); ALTER TABLE a REPLICA IDENTITY FULL; CREATE TABLE other (id int PRIMARY KEY);
		INSERT INTO a VALUES (1, 'x'), (2, 'x'), (3, 'y'), (4, 'y')`)
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	made := mustMakeSet(t, i, "mine", &loggerv1.SetTable{Pattern: "public.a", Rows: `{"org": {"$param": "org"}}`})
	since := i.barrier(t)
	pgtest.Exec(t, conn, "UPDATE a SET v = 'z' WHERE id IN (1, 3)")
	pgtest.Exec(t, conn, "UPDATE a SET org = 'y' WHERE id = 2")
	pgtest.Exec(t, conn, "UPDATE a SET org = 'x' WHERE id = 4; INSERT INTO a VALUES (5, 'y'); INSERT INTO other VALUES (1)")
	i.barrier(t)
	request := &loggerv1.ListUpdatedSinceRequest{Position: since, Set: "mine", Parameters: map[string]string{"org": "x"}, PageSize: 1}
	var got []string
	var token string
	for {
		answer := i.updated(t, request)
		for _, u := range answer.GetUpdates() {
			got = append(got, strings.ToLower(strings.TrimPrefix(u.GetAction().String(), "ACTION_"))+" "+u.GetKey()[0].GetValue())
		}
		if request.PageToken = answer.GetNextPageToken(); request.PageToken == "" {
			break
		}
		token = request.PageToken
	}
	if want := []string{"delete 1", "create 1", "delete 2", "create 4"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	for _, wrong := range []*loggerv1.ListUpdatedSinceRequest{
		{Position: since, Set: "mine"},
		{Position: since, Set: "mine", Parameters: map[string]string{"org": "x"}, IncludeTables: []string{"public.other"}},
		{Position: since, Parameters: map[string]string{"org": "x"}},
		{PageToken: token, Set: "mine", Parameters: map[string]string{"org": "y"}},
		{PageToken: token},
	} {
		if _, err := i.client.ListUpdatedSince(t.Context(), wrong); rpc.Reason(err) != rpc.ReasonInvalid {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	if _, err := i.client.UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "mine", Spec: made.GetSpec()}); err != nil {
		t.Fatal(err)
	}
	request.PageToken = token
	if _, err := i.client.ListUpdatedSince(t.Context(), request); rpc.Reason(err) != rpc.ReasonInvalid {
		t.Errorf("a page of another version of the set: %v", err)
	}
}
