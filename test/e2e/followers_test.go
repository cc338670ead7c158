package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestFollow follows a primary as anybody may: with the generated client and nothing of ours besides.
func TestFollow(t *testing.T) {
	t.Parallel()
	source := newSource(t, pgtest.WithFsync(false))
	for name, test := range map[string]func(*testing.T, *pgtest.Server){
		"every transaction once": followEveryTransaction,
		"positions that are not": followNoPosition,
		"heartbeats":             followHeartbeats,
		"one that does not read": followStalled,
	} {
		t.Run(name, func(t *testing.T) { test(t, source) })
	}
}

// deedTables hold what the deeds write: each transaction takes the next number of all, and so numbers are in commit order.
const deedTables = `
CREATE TABLE numbers (singleton bool PRIMARY KEY DEFAULT true, last bigint); INSERT INTO numbers VALUES (true, 0);
CREATE TABLE deeds (number bigint, part int, filler text, PRIMARY KEY (number, part));`

// writeDeeds commits transactions of several sessions at once, and returns how many parts each committed one has, by number.
func writeDeeds(t testing.TB, url string, seed uint64, sessions, each int) map[int64]int {
	t.Helper()
	var mu sync.Mutex
	parts := map[int64]int{}
	var writing sync.WaitGroup
	for s := range sessions {
		conn := pgtest.Connect(t, url)
		writing.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(s)))
			for range each {
				count := 1 + r.IntN(20)
				if r.IntN(20) == 0 {
					count = 3000 // several blocks
				}
				number, err := writeDeed(conn, count, r.IntN(10) == 0, r.IntN(4) == 0)
				if err != nil {
					t.Error(err)
					return
				}
				if number > 0 {
					mu.Lock()
					parts[number] = count
					mu.Unlock()
				}
			}
		})
	}
	writing.Wait()
	return parts
}

// deed is what a follower saw of a transaction.
type deed struct {
	number int64
	parts  int
	end    uint64
}

// reader reads a stream of Follow and fails when it breaks a promise: blocks chain, relations come before their use,
// transactions come whole and in order.
type reader struct {
	stream    loggerv1.LoggerService_FollowClient
	position  *changev1.Position // where the stream stands: through the last block
	relations map[string]*changev1.Relation
	block     uint64
	open      *deed
	lastEnd   uint64
	beat      *loggerv1.Heartbeat // the last one
	done      func(deed)
}

func follow(ctx context.Context, primary *node, request *loggerv1.FollowRequest, done func(deed)) (*reader, error) {
	stream, err := primary.logger().Follow(ctx, request)
	if err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if first.GetStarted() == nil {
		return nil, fmt.Errorf("the stream begins with %v", first)
	}
	return &reader{stream: stream, position: first.GetStarted().GetPosition(), relations: map[string]*changev1.Relation{}, done: done}, nil
}

// next reads one event.
func (r *reader) next() error {
	answer, err := r.stream.Recv()
	if err != nil {
		return err
	}
	switch event := answer.GetEvent().(type) {
	case *loggerv1.FollowResponse_Relation:
		r.relations[string(event.Relation.GetHash())] = event.Relation
	case *loggerv1.FollowResponse_Heartbeat:
		r.beat = event.Heartbeat
	case *loggerv1.FollowResponse_Block:
		return r.read(event.Block)
	default:
		return fmt.Errorf("an event that cannot be here: %v", answer)
	}
	return nil
}

func (r *reader) read(b *changev1.Block) error {
	switch {
	case r.block != 0 && b.GetNumber() != r.block+1:
		return fmt.Errorf("block %d came after %d", b.GetNumber(), r.block)
	case b.GetPreviousLsn() > r.position.GetLsn() || r.block != 0 && b.GetPreviousLsn() != r.position.GetLsn():
		return fmt.Errorf("block %d continues %d, and the stream stands at %d: a hole", b.GetNumber(), b.GetPreviousLsn(), r.position.GetLsn())
	case fmt.Sprintf("%x", b.GetLogId()) != r.position.GetLogId():
		return fmt.Errorf("block %d is of another log", b.GetNumber())
	}
	for _, hash := range b.GetRelations() {
		if r.relations[string(hash)] == nil {
			return fmt.Errorf("block %d uses a relation that was not sent", b.GetNumber())
		}
	}
	r.block = b.GetNumber()
	for _, record := range b.GetRecords() {
		if err := r.record(b, record); err != nil {
			return fmt.Errorf("block %d: %w", b.GetNumber(), err)
		}
	}
	if r.open == nil {
		r.position = &changev1.Position{LogId: r.position.GetLogId(), Lsn: b.GetThroughLsn()}
	} else if b.GetThroughLsn() != r.position.GetLsn() {
		return fmt.Errorf("block %d is through %d inside a transaction", b.GetNumber(), b.GetThroughLsn())
	}
	return nil
}

func (r *reader) record(b *changev1.Block, record *changev1.Record) error {
	switch event := record.GetRecord().(type) {
	case *changev1.Record_Begin:
		if r.open != nil {
			return errors.New("a transaction begins inside another")
		}
		r.open = &deed{}
	case *changev1.Record_Commit:
		end := event.Commit.GetEndLsn()
		if r.open == nil || end <= r.lastEnd || end <= event.Commit.GetCommitLsn() {
			return fmt.Errorf("a commit at %d after %d, open %v", end, r.lastEnd, r.open != nil)
		}
		r.open.end, r.lastEnd = end, end
		if r.open.number > 0 || r.open.parts > 0 {
			r.done(*r.open)
		}
		r.open = nil
	case *changev1.Record_Change:
		if r.open == nil {
			return errors.New("a change outside of a transaction")
		}
		return r.change(r.relations[string(b.GetRelations()[event.Change.GetRelation()])], event.Change)
	}
	return nil
}

// change notes the number of a deed, and its parts, which come in order.
func (r *reader) change(relation *changev1.Relation, c *changev1.Change) error {
	values := c.GetNew().GetValues()
	switch relation.GetName() {
	case "numbers":
		_, err := fmt.Sscan(string(values[1]), &r.open.number)
		return err
	case "deeds":
		if want := fmt.Sprint(r.open.parts); string(values[1]) != want {
			return fmt.Errorf("part %s came where %s is due", values[1], want)
		}
		r.open.parts++
		return nil
	}
	return fmt.Errorf("a change of table %s", relation.GetName())
}

// readUntil reads until the stream has passed a position.
func (r *reader) readUntil(lsn uint64) error {
	for r.position.GetLsn() < lsn {
		if err := r.next(); err != nil {
			return err
		}
	}
	return nil
}

func barrier(t testing.TB, primary *node) *changev1.Position {
	t.Helper()
	answer, err := primary.logger().EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	return answer.GetPosition()
}

// requireDeeds fails unless exactly these deeds from a number on were seen, each once, whole, in the order of their numbers.
func requireDeeds(t testing.TB, who string, seen []deed, parts map[int64]int, after int64) {
	t.Helper()
	last, count := after, 0
	for _, d := range seen {
		if d.number <= last {
			t.Fatalf("%s: transaction %d came after %d", who, d.number, last)
		}
		if d.parts != parts[d.number] {
			t.Fatalf("%s: transaction %d has %d parts instead of %d", who, d.number, d.parts, parts[d.number])
		}
		last = d.number
		count++
	}
	for number := range parts {
		if number > after {
			count--
		}
	}
	if count != 0 {
		t.Fatalf("%s: %d transactions more than were committed", who, count)
	}
}

// followEveryTransaction has eight followers from the beginning, some from now on, some bounded, and then some from every place,
// while several sessions write, commit and roll back.
func followEveryTransaction(t *testing.T, source *pgtest.Server) {
	url := source.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, deedTables)
	primary := startPrimary(t, url)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	parts := writeDeeds(t, url, seed, 4, 50)
	before := slices.Max(slices.Collect(maps.Keys(parts)))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	type outcome struct {
		who   string
		after int64
		seen  []deed
		err   error
	}
	outcomes := make(chan outcome)
	reached := make(chan uint64, 16)
	start := func(who string, after int64, request *loggerv1.FollowRequest) {
		o := outcome{who: who, after: after}
		r, err := follow(ctx, primary, request, func(d deed) { o.seen = append(o.seen, d) })
		if err != nil {
			t.Fatalf("%s: %s", who, rpc.Message(err))
		}
		go func() {
			// The end is known once all is written; a heartbeat comes at least each second.
			var end uint64
			for o.err == nil && (end == 0 || r.position.GetLsn() < end) {
				if end == 0 {
					select {
					case end = <-reached:
						continue
					default:
					}
				}
				o.err = r.next()
			}
			outcomes <- o
		}()
	}
	waitLogged(t, primary) // so that now is after what was written
	for i := range 8 {
		start(fmt.Sprintf("follower %d from the earliest", i), 0, &loggerv1.FollowRequest{Start: loggerv1.Start_START_EARLIEST, Follower: fmt.Sprintf("f%d", i)})
	}
	for i := range 2 {
		start(fmt.Sprintf("follower %d from now", i), before, &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW})
	}
	for number, count := range writeDeeds(t, url, seed+1, 4, 100) {
		parts[number] = count
	}
	end := barrier(t, primary)
	for range 10 {
		reached <- end.GetLsn()
	}
	var all []deed
	for range 10 {
		o := <-outcomes
		if o.err != nil {
			t.Fatalf("%s: %s", o.who, rpc.Message(o.err))
		}
		requireDeeds(t, o.who, o.seen, parts, o.after)
		if o.after == 0 {
			if all != nil && !slices.Equal(all, o.seen) {
				t.Fatalf("%s saw something else than another from the same place", o.who)
			}
			all = o.seen
		}
	}
	t.Logf("%d transactions to each follower", len(all))

	// From after each of some transactions, to the end, which is the end of the stream.
	r := rand.New(rand.NewPCG(seed, 99))
	for range 25 {
		at := all[r.IntN(len(all))]
		var seen []deed
		reader, err := follow(ctx, primary, &loggerv1.FollowRequest{Position: &changev1.Position{LogId: end.GetLogId(), Lsn: at.end}, ToLsn: end.GetLsn()},
			func(d deed) { seen = append(seen, d) })
		if err != nil {
			t.Fatalf("from %d: %s", at.end, rpc.Message(err))
		}
		for err == nil {
			err = reader.next()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("from %d: the bounded stream ends with %s", at.end, rpc.Message(err))
		}
		requireDeeds(t, fmt.Sprintf("from after %d", at.number), seen, parts, at.number)
	}
	if slots := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_replication_slots"); slots != 1 {
		t.Errorf("%d slots with ten followers", slots)
	}
	list, err := primary.logger().ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if !slices.ContainsFunc(list.GetFollowers(), func(f *loggerv1.Follower) bool { return f.GetName() == fmt.Sprintf("f%d", i) }) {
			t.Errorf("follower f%d is not listed", i)
		}
	}
}

// waitLogged waits until the change log has what was committed before.
func waitLogged(t testing.TB, primary *node) {
	t.Helper()
	at := barrier(t, primary)
	pgtest.Eventually(t, time.Minute, func() error {
		state, err := primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err != nil {
			return err
		}
		if state.GetPosition().GetLsn() < at.GetLsn() {
			return fmt.Errorf("the log is at %d and not yet at %d: %s %s", state.GetPosition().GetLsn(), at.GetLsn(), state.GetState(), state.GetReason())
		}
		return nil
	})
}

// followNoPosition asks for what the log does not have: purged, not yet written, of another log.
func followNoPosition(t *testing.T, source *pgtest.Server) {
	url := source.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, deedTables)
	primary := startPrimary(t, url, "--log-max-bytes", fmt.Sprint(4<<20))
	ranges := func() *loggerv1.GetRangesResponse {
		answer, err := primary.logger().GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
		if err != nil {
			t.Fatal(rpc.Message(err))
		}
		return answer
	}
	old := ranges()
	position := func(lsn uint64) *changev1.Position { return &changev1.Position{LogId: old.GetLogId(), Lsn: lsn} }
	ask := func(p *changev1.Position) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := follow(ctx, primary, &loggerv1.FollowRequest{Position: p}, nil)
		return err
	}
	for range 12 {
		pgtest.Exec(t, conn, "INSERT INTO deeds SELECT coalesce((SELECT max(number) FROM deeds), 0) + n, 0, repeat(md5(n::text), 32) FROM generate_series(1, 1000) n")
	}
	waitLogged(t, primary)
	pgtest.Eventually(t, time.Minute, func() error {
		if now := ranges(); now.GetFirstLsn() <= old.GetFirstLsn() {
			return fmt.Errorf("nothing is purged of %d bytes", now.GetBytes())
		}
		return nil
	})
	now := ranges()
	err := ask(position(old.GetFirstLsn()))
	requireRefused(t, err, codes.OutOfRange, "POSITION_TOO_OLD", "copied anew", "--log-max-bytes")
	for key, want := range map[string]string{"log_id": now.GetLogId(), "first_lsn": "", "last_lsn": ""} {
		if got := rpc.Metadata(err)[key]; got == "" || want != "" && got != want {
			t.Errorf("metadata %s is %q", key, got)
		}
	}
	requireRefused(t, ask(position(now.GetLastLsn()+1<<30)), codes.OutOfRange, "POSITION_AHEAD", "after the end")
	requireRefused(t, ask(&changev1.Position{LogId: "00112233445566778899aabbccddeeff", Lsn: now.GetLastLsn()}), codes.OutOfRange, "LOG_ID_MISMATCH", "copied anew")
	for _, lsn := range []uint64{now.GetFirstLsn(), now.GetLastLsn()} {
		if err := ask(position(lsn)); err != nil {
			t.Errorf("from %d, which the log has: %s", lsn, rpc.Message(err))
		}
	}
	// The earliest is what is left, and begins with a whole transaction.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := follow(ctx, primary, &loggerv1.FollowRequest{Start: loggerv1.Start_START_EARLIEST}, func(deed) {})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	for r.position.GetLsn() < now.GetLastLsn() && err == nil {
		answer, failed := r.stream.Recv()
		if err = failed; err == nil && answer.GetBlock() != nil {
			r.position.Lsn = answer.GetBlock().GetThroughLsn()
		}
	}
	if err != nil {
		t.Errorf("from the earliest: %s", rpc.Message(err))
	}
}

// followHeartbeats has nothing to read: heartbeats come in time all the same, and their head moves with what is written to
// another database.
func followHeartbeats(t *testing.T, source *pgtest.Server) {
	url := source.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), deedTables)
	other := pgtest.Connect(t, source.Database(t))
	pgtest.Exec(t, other, "CREATE TABLE elsewhere (v text)")
	primary := startPrimary(t, url)
	const interval = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := follow(ctx, primary, &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Heartbeat: durationpb.New(interval)}, func(d deed) { t.Errorf("there is a transaction: %v", d) })
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	var longest time.Duration
	var heads []uint64
	began := time.Now()
	for range 25 {
		pgtest.Exec(t, other, "INSERT INTO elsewhere SELECT md5(n::text) FROM generate_series(1, 100) n")
		last := time.Now()
		for r.beat = nil; r.beat == nil; {
			if err := r.next(); err != nil {
				t.Fatal(rpc.Message(err))
			}
		}
		longest = max(longest, time.Since(last))
		heads = append(heads, r.beat.GetHead().GetLsn())
		if age := time.Since(r.beat.GetTime().AsTime()); age < -time.Minute || age > time.Minute {
			t.Errorf("a heartbeat tells the time as of %v ago", age)
		}
		if r.beat.GetCurrentWalLsn() < r.beat.GetHead().GetLsn() {
			t.Error("a heartbeat shows a head ahead of the primary's WAL")
		}
	}
	if !slices.IsSorted(heads) || heads[0] == heads[len(heads)-1] {
		t.Errorf("the head does not move on: %v", heads)
	}
	if longest > 10*interval {
		t.Errorf("%v without a heartbeat", longest)
	}
	t.Logf("25 heartbeats in %v, the longest pause %v", time.Since(began).Round(time.Millisecond), longest.Round(time.Millisecond))
}

// followStalled has one follower that does not read. The others and capture do not notice, and it gets all later.
func followStalled(t *testing.T, source *pgtest.Server) {
	url := source.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, deedTables)
	primary := startPrimary(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	request := &loggerv1.FollowRequest{Start: loggerv1.Start_START_EARLIEST}
	var late []deed
	stalled, err := follow(ctx, primary, request, func(d deed) { late = append(late, d) })
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	// Its connection is its own: another stream on it would share its window.
	primary.conn = nil
	parts := map[int64]int{}
	const transactions, rows = 60, 1000
	for n := range transactions {
		pgtest.Exec(t, conn, fmt.Sprintf("BEGIN; UPDATE numbers SET last = last + 1; INSERT INTO deeds SELECT %d, n - 1, repeat(md5(n::text), 40) FROM generate_series(1, %d) n; COMMIT", n+1, rows))
		parts[int64(n+1)] = rows
	}
	end := barrier(t, primary)
	for i := range 3 {
		began := time.Now()
		var seen []deed
		r, err := follow(ctx, primary, request, func(d deed) { seen = append(seen, d) })
		if err == nil {
			err = r.readUntil(end.GetLsn())
		}
		if err != nil {
			t.Fatal(rpc.Message(err))
		}
		requireDeeds(t, "beside a stalled follower", seen, parts, 0)
		t.Logf("follower %d read all in %v beside one that reads nothing", i, time.Since(began).Round(time.Millisecond))
	}
	if stalled.position.GetLsn() >= end.GetLsn() {
		t.Error("the stalled follower has read something")
	}
	if err := stalled.readUntil(end.GetLsn()); err != nil {
		t.Fatal(rpc.Message(err))
	}
	requireDeeds(t, "the stalled follower, later", late, parts, 0)
}

// writeDeed writes one transaction: the next number, and its parts. It returns 0 when it was rolled back.
func writeDeed(conn *pgx.Conn, parts int, rollback, savepoint bool) (number int64, err error) {
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing after a commit
	if err := tx.QueryRow(ctx, "UPDATE numbers SET last = last + 1 RETURNING last").Scan(&number); err != nil {
		return 0, err
	}
	if savepoint {
		if _, err := tx.Exec(ctx, "SAVEPOINT s; INSERT INTO deeds SELECT -1, n FROM generate_series(1, 50) n; ROLLBACK TO s; RELEASE s"); err != nil {
			return 0, err
		}
	}
	const sql = "INSERT INTO deeds SELECT $1, n - 1, repeat(md5(n::text), 3) FROM generate_series(1, $2) n"
	if _, err := tx.Exec(ctx, sql, number, parts); err != nil {
		return 0, err
	}
	if rollback {
		return 0, tx.Rollback(ctx)
	}
	return number, tx.Commit(ctx)
}
