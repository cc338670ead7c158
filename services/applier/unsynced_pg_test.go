package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// aside puts a change of a table into quarantine, whose columns are id and note.
func (s *store) aside(t *testing.T, table string, number int, note string) (id int64) {
	t.Helper()
	err := s.pool.QueryRow(t.Context(), `INSERT INTO syncline.quarantine (replication, log_id, commit_lsn, number, commit_time, xid, origin_server, origin_log, origin_lsn, origin_time,
		schema_name, table_name, target_schema, target_table, relation, locator, operation, has_old, signature, held, bytes)
		VALUES ('shop', '00', '0/10', $1, 0, 1, '', '00', '0/1', 0, 'public', $2, 'public', $2,
			'{"identity": "d", "columns": [{"name": "id", "key": true}, {"name": "note"}]}', '{0}', 'I', false, '', '{}', 1) RETURNING id`, number, table).Scan(&id)
	if err == nil {
		_, err = s.pool.Exec(t.Context(), "INSERT INTO syncline.quarantine_values VALUES ($1, false, 0, 't', $2), ($1, false, 1, 't', $3)", id, fmt.Appendf(nil, "%d", number), []byte(note))
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *store) inTx(t *testing.T, do func(context.Context, pgx.Tx) error) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error { return do(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// TestDropsAreTold: whatever takes changes out of the quarantine without applying them tells of which table and how many.
func TestDropsAreTold(t *testing.T) {
	config := DefaultConfig()
	name := func(table string) schema.Name { return schema.Name{Schema: "public", Name: table} }
	for why, drop := range map[string]func(context.Context, pgx.Tx, *drops) error{
		whyCopied: func(ctx context.Context, tx pgx.Tx, gone *drops) error {
			return beginTable(ctx, tx, "shop", name("a"), copySnapshot{}, gone)
		},
		whyRemoved: func(ctx context.Context, tx pgx.Tx, gone *drops) error {
			return removeTable(ctx, tx, "shop", name("a"), gone)
		},
		whyResync: func(ctx context.Context, tx pgx.Tx, gone *drops) error {
			return forgetPosition(ctx, tx, "shop", gone)
		},
		whyDeleted: func(ctx context.Context, tx pgx.Tx, _ *drops) error {
			return forgetReplication(ctx, tx, "shop", whyDeleted)
		},
	} {
		t.Run(why, func(t *testing.T) {
			s, _ := storedReplication(t, &config)
			all := why == whyResync || why == whyDeleted
			for n := range 3 {
				s.aside(t, "a", n, "x")
			}
			s.aside(t, "b", 9, "y")
			s.inTx(t, func(ctx context.Context, tx pgx.Tx) error {
				gone := &drops{replication: "shop"}
				if err := drop(ctx, tx, gone); err != nil {
					return err
				}
				return gone.store(ctx, tx)
			})
			list, err := s.events(t.Context(), eventFilter{replication: "shop", limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			list = slices.DeleteFunc(list, func(e *event) bool { return e.kind != kindDropped })
			want := 1
			if all {
				want = 2
			}
			if len(list) != want || list[0].rows != 3 || !strings.Contains(list[0].text, "3 changes of table public.a") || !strings.Contains(list[0].text, why) {
				t.Fatalf("told %d, %+v", len(list), list)
			}
			if all && (list[1].rows != 1 || !strings.Contains(list[1].text, "public.b")) {
				t.Errorf("told %+v", list[1])
			}
			if left := one[int](t, s, "SELECT count(*) FROM syncline.quarantine_values"); left != 2-2*(want-1) {
				t.Errorf("%d values are left", left)
			}
		})
	}
}

// TestEditsAreKept: what is written instead of the source's values is kept in its transaction, cut and bounded, and listed by pages.
func TestEditsAreKept(t *testing.T) {
	config := DefaultConfig()
	s, _ := storedReplication(t, &config)
	long := strings.Repeat("é", editValueBytes)
	retry := func(id int64, edits ...*applierv1.UnsyncedEdit) func(context.Context, pgx.Tx, int64) error {
		return edited(&applierv1.RetryUnsyncedRequest{Name: "shop", Ids: []int64{id}, Edits: edits}, &access.Principal{Name: "anna", Role: access.Operator})
	}
	first := s.aside(t, "a", 17, "wrong")
	note := retry(first, &applierv1.UnsyncedEdit{Column: "note", Text: "first"}, &applierv1.UnsyncedEdit{Column: "id", Null: true}, &applierv1.UnsyncedEdit{Column: "note", Text: long})
	broken := errors.New("the change is refused")
	if err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error { return errors.Join(note(t.Context(), tx, first), broken) }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if n := one[int](t, s, "SELECT count(*) FROM syncline.unsynced_edits"); n != 0 {
		t.Errorf("%d edits are kept of what was rolled back", n)
	}
	s.inTx(t, func(ctx context.Context, tx pgx.Tx) error { return note(ctx, tx, first) })
	list, err := s.editsBefore(t.Context(), "shop", 0, 10)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	e := list[0]
	if e.GetPrincipal() != "anna" || e.GetChangeId() != first || e.GetKey() != "(id=17)" || e.GetTable() != "a" || e.GetOperation() != applierv1.UnsyncedOperation_UNSYNCED_OPERATION_INSERT || len(e.GetColumns()) != 2 {
		t.Errorf("kept %v", e)
	}
	body, id := e.GetColumns()[0], e.GetColumns()[1]
	if string(body.GetSourceValue().GetText()) != "wrong" || body.GetWrittenValue().GetSize() != int64(len(long)) || len(body.GetWrittenValue().GetText()) != editValueBytes {
		t.Errorf("kept %v", body.GetSourceValue())
	}
	if string(id.GetSourceValue().GetText()) != "17" || !id.GetWrittenValue().GetNull() {
		t.Errorf("kept %v", id)
	}

	s.do(t, `INSERT INTO syncline.unsynced_edits (replication, entry, principal, schema_name, table_name, operation, key, log_id, commit_lsn, columns)
		SELECT 'shop', 0, '', 'public', 'a', 'U', '', '00', '0/1', '[]' FROM generate_series(1, 2000)`)
	s.inTx(t, func(ctx context.Context, tx pgx.Tx) error { return note(ctx, tx, first) })
	if n := one[int](t, s, "SELECT count(*) FROM syncline.unsynced_edits"); n != mostEdits {
		t.Errorf("%d edits are kept", n)
	}
	s.do(t, "UPDATE syncline.unsynced_edits SET edited_at = now() - interval '1 year' WHERE id % 2 = 0")
	s.runLog.prune(t.Context())
	if n := one[int](t, s, "SELECT count(*) FROM syncline.unsynced_edits"); n != mostEdits/2 {
		t.Errorf("%d edits are kept that are not old", n)
	}
	service := &Service{store: s, ready: make(chan struct{})}
	page, err := service.ListUnsyncedEdits(t.Context(), &applierv1.ListUnsyncedEditsRequest{Name: "shop", PageSize: 2})
	if err != nil || len(page.GetEdits()) != 2 {
		t.Fatal(page, err)
	}
	next, err := service.ListUnsyncedEdits(t.Context(), &applierv1.ListUnsyncedEditsRequest{Name: "shop", PageSize: 2, PageToken: page.GetNextPageToken()})
	if err != nil || len(next.GetEdits()) != 2 || next.GetEdits()[0].GetId() >= page.GetEdits()[1].GetId() {
		t.Errorf("%v, %v", next, err)
	}
	for _, in := range []*applierv1.ListUnsyncedEditsRequest{{Name: "shop", PageSize: maxEditPage + 1}, {Name: "shop", PageToken: "x"}} {
		if _, err := service.ListUnsyncedEdits(t.Context(), in); rpc.Reason(err) != rpc.ReasonInvalid {
			t.Errorf("%v: %v", in, err)
		}
	}
}

// runStream takes what a watch sends.
type runStream struct {
	grpc.ServerStream
	ctx  context.Context
	runs chan *applierv1.Run
}

func (s *runStream) Context() context.Context { return s.ctx }
func (s *runStream) Send(answer *applierv1.WatchRunsResponse) error {
	s.runs <- answer.GetRun()
	return nil
}

// TestWatchRuns: a watch begins with the newest runs and those that go on, and tells of each that begins, changes or ends.
func TestWatchRuns(t *testing.T) {
	config := DefaultConfig()
	s, _ := storedReplication(t, &config)
	for range 3 {
		s.do(t, "UPDATE syncline.job_runs SET ended_at = now(), result = 'success' WHERE ended_at IS NULL; INSERT INTO syncline.job_runs (replication, trigger, applier, from_transactions, from_changes, from_rows) VALUES ('shop', 'user', '', 0, 0, 0)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream := &runStream{ctx: ctx, runs: make(chan *applierv1.Run, 10)}
	service := &Service{store: s, ready: make(chan struct{}), runners: map[string]*runner{}}
	close(service.ready)
	ended := make(chan error)
	go func() { ended <- service.WatchRuns(&applierv1.WatchRunsRequest{Newest: 2}, stream) }()
	next := func() *applierv1.Run {
		t.Helper()
		select {
		case run := <-stream.runs:
			return run
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Minute):
			t.Fatal("no run comes")
		}
		return nil
	}
	third, fourth := next(), next()
	if third.GetEndTime() == nil || fourth.GetEndTime() != nil || third.GetId() >= fourth.GetId() {
		t.Errorf("it begins with %v and %v", third, fourth)
	}
	s.do(t, `INSERT INTO syncline.positions (replication, log_id, lsn, set_aside) VALUES ('shop', '`+strings.Repeat("0", 32)+`', '0/1', 5)`)
	for run := next(); run.GetSetAside() != 5; run = next() {
		if run.GetId() != fourth.GetId() || run.GetEndTime() != nil {
			t.Fatalf("told %v", run)
		}
	}
	s.inTx(t, func(ctx context.Context, tx pgx.Tx) error {
		return closeRun(ctx, tx, "shop", ending{result: resultSuccess})
	})
	if run := next(); run.GetId() != fourth.GetId() || run.GetResult() != applierv1.RunResult_RUN_RESULT_WARNING || run.GetSetAside() != 5 || run.GetEndTime() == nil {
		t.Errorf("its end is told as %v", run)
	}
	s.inTx(t, func(ctx context.Context, tx pgx.Tx) error {
		return openRun(ctx, tx, "shop", opening{trigger: triggerUser})
	})
	if run := next(); run.GetId() <= fourth.GetId() || run.GetSetAside() != 0 {
		t.Errorf("the next one is told as %v", run)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if err := service.WatchRuns(&applierv1.WatchRunsRequest{Newest: maxRunPage + 1}, stream); rpc.Reason(err) != rpc.ReasonInvalid {
		t.Errorf("refused with %v", err)
	}
	if err := service.WatchRuns(&applierv1.WatchRunsRequest{Replication: "none"}, &runStream{ctx: t.Context()}); !errors.Is(err, errNotFound) {
		t.Errorf("refused with %v", err)
	}
}

// TestRunsForgetNothingEnded: a watch keeps no run for long that has ended.
func TestRunsForgetNothingEnded(t *testing.T) {
	watched := map[int64]*watchedRun{1: {}, 2: {ended: time.Now()}, 3: {ended: time.Now().Add(-2 * runSettles)}}
	if forgetRuns(watched); len(watched) != 2 || watched[3] != nil {
		t.Errorf("watched %v", watched)
	}
}
