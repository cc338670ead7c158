package logger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// patience is long because a machine may be busy with other things; nothing waits for it to pass.
const patience = 3 * time.Minute

// testConfig is a configuration for a database of a test. Slots are shared by all databases of a server, so its name is
// the database's.
func testConfig(t testing.TB, url string) Config {
	t.Helper()
	identity, err := node.Prepare(t.Context(), url, node.Primary)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.PostgresURL, cfg.Dir, cfg.ServerID = url, t.TempDir(), identity.ServerID
	cfg.Slot = fmt.Sprintf("%.50s", identity.Database)
	cfg.CatalogInterval = 100 * time.Millisecond
	cfg.RetryMax, cfg.FailedRetry = 500*time.Millisecond, 500*time.Millisecond
	return cfg
}

// instance is a logger that runs in the test's process, behind a gRPC server.
type instance struct {
	*Service
	client loggerv1.LoggerServiceClient
	stop   func() // waits until everything has ended; may be called again
}

func start(t testing.TB, cfg Config) *instance {
	t.Helper()
	service, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.WithTable(Errors()))
	service.Register(server)
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serving, stopServing := context.WithCancel(context.Background())
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Run(serving, listener) }()
	go func() { ran <- service.Run(ctx) }()
	stopped := false
	i := &instance{Service: service, client: loggerv1.NewLoggerServiceClient(conn)}
	i.stop = func() {
		if stopped {
			return
		}
		stopped = true
		conn.Close()
		stopServing()
		if err := <-served; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(i.stop)
	return i
}

func (i *instance) state(t testing.TB) *loggerv1.GetStateResponse {
	t.Helper()
	state, err := i.client.GetState(t.Context(), &loggerv1.GetStateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// waitFor polls the state until it is as wanted.
func (i *instance) waitFor(t testing.TB, what string, ok func(*loggerv1.GetStateResponse) bool) *loggerv1.GetStateResponse {
	t.Helper()
	var state *loggerv1.GetStateResponse
	pgtest.Eventually(t, patience, func() error {
		if state = i.state(t); !ok(state) {
			return fmt.Errorf("not %s: %v", what, state)
		}
		return nil
	})
	return state
}

func (i *instance) waitCapturing(t testing.TB) *loggerv1.GetStateResponse {
	t.Helper()
	return i.waitFor(t, "capturing", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseCapturing })
}

// barrier emits a barrier and waits until the log has it.
func (i *instance) barrier(t testing.TB) *changev1.Position {
	t.Helper()
	var position *changev1.Position
	pgtest.Eventually(t, patience, func() error {
		answer, err := i.client.EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
		position = answer.GetPosition()
		return err
	})
	i.waitFor(t, "past the barrier", func(s *loggerv1.GetStateResponse) bool {
		return s.GetPosition().GetLogId() != position.GetLogId() || s.GetPosition().GetLsn() >= position.GetLsn()
	})
	return position
}

// transaction is one transaction as a follower, or an independent slot, sees it.
type transaction struct {
	end    uint64
	xid    uint32
	time   int64
	count  int
	digest [32]byte
	events []string // the first few
}

func (x *transaction) String() string {
	return fmt.Sprintf("%v xid %d, %d events %.8x: %.2000s", change.LSN(x.end), x.xid, x.count, x.digest, strings.Join(x.events, "\n  "))
}

// history collects transactions. Events are kept as text for a few, and as a digest for all.
type history struct {
	done []transaction
	open *transaction
	hash []byte
}

const eventsKept = 20

func (h *history) begin(xid uint32, at int64) {
	h.open = &transaction{xid: xid, time: at}
	h.hash = nil
}

func (h *history) event(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	sum := sha256.Sum256(append(h.hash, text...))
	h.hash = sum[:]
	h.open.digest = sum
	if h.open.count++; len(h.open.events) < eventsKept {
		h.open.events = append(h.open.events, fmt.Sprintf("%.300s", text))
	}
}

func (h *history) commit(end uint64) {
	h.open.end = end
	h.done = append(h.done, *h.open)
	h.open = nil
}

// reader reads a stream with the generated code only, and checks what a follower may rely on.
type reader struct {
	t         testing.TB
	history   history
	position  *changev1.Position // of the last block, or of the start
	number    uint64
	relations map[string]*changev1.Relation
	fragment  []byte
	blocks    int
	digest    [32]byte // over the serialized blocks
	beats     int
	lastBeat  *loggerv1.Heartbeat
	ended     *loggerv1.Ended
}

// read follows until the stream ends, and returns its error; nil after io.EOF.
func (r *reader) read(ctx context.Context, client loggerv1.LoggerServiceClient, request *loggerv1.FollowRequest) error {
	stream, err := client.Follow(ctx, request)
	if err != nil {
		return err
	}
	r.relations = make(map[string]*changev1.Relation)
	r.number, r.ended = 0, nil
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if r.history.open != nil || r.fragment != nil {
				return errors.New("the stream ended inside a transaction")
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.take(answer); err != nil {
			return err
		}
	}
}

func (r *reader) take(answer *loggerv1.FollowResponse) error {
	if r.ended != nil {
		return fmt.Errorf("%v after the end", answer)
	}
	switch event := answer.GetEvent().(type) {
	case *loggerv1.FollowResponse_Started:
		r.position = event.Started.GetPosition()
	case *loggerv1.FollowResponse_Relation:
		r.relations[string(event.Relation.GetHash())] = event.Relation
	case *loggerv1.FollowResponse_Heartbeat:
		r.beats++
		r.lastBeat = event.Heartbeat
	case *loggerv1.FollowResponse_Block:
		return r.block(event.Block)
	case *loggerv1.FollowResponse_Ended:
		r.ended = event.Ended
	default:
		return fmt.Errorf("unexpected %T", event)
	}
	return nil
}

func (r *reader) block(b *changev1.Block) error {
	id := change.LogID(b.GetLogId()).String()
	switch {
	case id != r.position.GetLogId():
		return fmt.Errorf("block %d is of log %s", b.GetNumber(), id)
	case r.number != 0 && b.GetNumber() != r.number+1:
		return fmt.Errorf("block %d after %d", b.GetNumber(), r.number)
	case r.number != 0 && b.GetPreviousLsn() != r.position.GetLsn(), b.GetPreviousLsn() > r.position.GetLsn():
		return fmt.Errorf("block %d continues %v, not %v", b.GetNumber(), change.LSN(b.GetPreviousLsn()), change.LSN(r.position.GetLsn()))
	}
	r.number = b.GetNumber()
	raw, err := proto.Marshal(b)
	if err != nil {
		return err
	}
	r.digest = sha256.Sum256(append(r.digest[:], raw...))
	r.blocks++
	for _, record := range b.GetRecords() {
		if fragment := record.GetFragment(); fragment != nil {
			r.fragment = append(r.fragment, fragment.GetData()...)
			if !fragment.GetLast() {
				continue
			}
			record = new(changev1.Record)
			if err := proto.Unmarshal(r.fragment, record); err != nil {
				return fmt.Errorf("join fragments: %w", err)
			}
			r.fragment = nil
		}
		if err := r.record(b, record); err != nil {
			return fmt.Errorf("block %d: %w", b.GetNumber(), err)
		}
	}
	r.position = &changev1.Position{LogId: id, Lsn: b.GetThroughLsn()}
	return nil
}

func (r *reader) relation(b *changev1.Block, index uint32) (*changev1.Relation, error) {
	if int(index) >= len(b.GetRelations()) {
		return nil, fmt.Errorf("relation %d of %d", index, len(b.GetRelations()))
	}
	relation := r.relations[string(b.GetRelations()[index])]
	if relation == nil {
		return nil, fmt.Errorf("relation %x was not sent before its use", b.GetRelations()[index])
	}
	return relation, nil
}

func (r *reader) record(b *changev1.Block, record *changev1.Record) error {
	h := &r.history
	switch record := record.GetRecord().(type) {
	case *changev1.Record_Begin:
		if h.open != nil {
			return errors.New("begin inside a transaction")
		}
		h.begin(record.Begin.GetXid(), record.Begin.GetCommitTime())
	case *changev1.Record_Commit:
		if h.open == nil || h.open.xid != record.Commit.GetXid() {
			return errors.New("commit of another transaction")
		}
		if n := len(h.done); n > 0 && h.done[n-1].end >= record.Commit.GetEndLsn() {
			return fmt.Errorf("commit at %v after %v", record.Commit.GetEndLsn(), h.done[n-1].end)
		}
		h.commit(record.Commit.GetEndLsn())
	case *changev1.Record_Change:
		relation, err := r.relation(b, record.Change.GetRelation())
		if err != nil {
			return err
		}
		oldKind := ""
		if record.Change.GetOld() != nil {
			oldKind = map[bool]string{true: "K", false: "O"}[record.Change.GetOldIsKey()]
		}
		h.event("%s %s.%s %s%s %s", strings.ToLower(strings.TrimPrefix(record.Change.GetOperation().String(), "OPERATION_")),
			relation.GetSchema(), relation.GetName(), oldKind, rowText(record.Change.GetOld()), rowText(record.Change.GetNew()))
	case *changev1.Record_Truncate:
		var names []string
		for _, index := range record.Truncate.GetRelations() {
			relation, err := r.relation(b, index)
			if err != nil {
				return err
			}
			names = append(names, relation.GetSchema()+"."+relation.GetName())
		}
		h.event("truncate %v %v %v", names, record.Truncate.GetCascade(), record.Truncate.GetRestartIdentity())
	case *changev1.Record_Message:
		h.event("message %s %x", record.Message.GetPrefix(), record.Message.GetContent())
	case *changev1.Record_Origin:
		if record.Origin.GetServerId() != "" {
			h.event("origin %s %v %d", record.Origin.GetServerId(), record.Origin.GetPosition().GetLsn(), record.Origin.GetCommitTime())
		} else {
			h.event("origin %s", record.Origin.GetName())
		}
	default:
		return fmt.Errorf("unexpected %T", record)
	}
	return nil
}

func rowText(row *changev1.Row) string {
	if row == nil {
		return ""
	}
	var b strings.Builder
	next := 0
	for _, kind := range row.GetKinds() {
		b.WriteByte(kind)
		if kind == 't' {
			valueText(&b, row.GetValues()[next])
			next++
		}
	}
	return b.String()
}

// valueText writes a long value as its size and digest.
func valueText(b *strings.Builder, value []byte) {
	const long = 200
	if len(value) <= long {
		fmt.Fprintf(b, "%q ", value)
		return
	}
	fmt.Fprintf(b, "%d:%x ", len(value), sha256.Sum256(value))
}

// follow reads everything from a position up to another with a fresh stream.
func follow(t testing.TB, i *instance, from, to *changev1.Position) *reader {
	t.Helper()
	r := &reader{t: t}
	request := &loggerv1.FollowRequest{Position: from, ToLsn: to.GetLsn()}
	if from == nil {
		request.Start = loggerv1.Start_START_EARLIEST
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.read(ctx, i.client, request); err != nil {
		t.Fatalf("follow: %v", err)
	}
	return r
}

// withoutBarriers leaves out the transactions of EmitBarrier. A barrier's position lies before the end of its own transaction.
func withoutBarriers(list []transaction) []transaction {
	return slices.DeleteFunc(slices.Clone(list), func(x transaction) bool {
		return x.count == 1 && x.events[0] == "message "+BarrierPrefix+" "
	})
}

// witness is a second, independent slot on the same publications. It is read with PostgreSQL's SQL functions and decoded
// by pglogrepl, so that nothing of ours is in its way.
type witness struct {
	slot, publications string
	from               uint64 // transactions that end after this are delivered
}

func newWitness(t testing.TB, url string, cfg Config) *witness {
	t.Helper()
	w := &witness{slot: fmt.Sprintf("%.54s_witness", cfg.Slot), publications: cfg.Publication + "," + cfg.Publication + "_insert"}
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", w.slot)
	text := pgtest.QueryRow[string](t, conn, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", w.slot)
	lsn, err := change.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	w.from = uint64(lsn)
	return w
}

// read returns what was committed since the witness was made, up to a position.
func (w *witness) read(t testing.TB, url string, to uint64) []transaction {
	t.Helper()
	conn := pgtest.Connect(t, url)
	for _, setting := range []string{"DateStyle = 'ISO, YMD'", "IntervalStyle = postgres", "extra_float_digits = 3", "TimeZone = 'UTC'", "bytea_output = hex", "search_path = ''"} {
		pgtest.Exec(t, conn, "SET "+setting)
	}
	rows, err := conn.Query(t.Context(), `SELECT xid::text::int8, data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
		'proto_version', '1', 'publication_names', $2, 'messages', 'true')`, w.slot, w.publications)
	if err != nil {
		t.Fatal(err)
	}
	var h history
	relations := make(map[uint32]*pglogrepl.RelationMessage)
	var xid int64
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&xid, &data}, func() error { return w.take(&h, relations, data) })
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(h.done, func(x transaction) bool { return x.end > to })
}

func (w *witness) take(h *history, relations map[uint32]*pglogrepl.RelationMessage, data []byte) error {
	if data[0] == 'M' { // pglogrepl drops the transactional flag's meaning: a message outside of transactions is left out
		var m pglogrepl.LogicalDecodingMessage
		if err := m.Decode(data[1:]); err != nil {
			return err
		}
		if !m.Transactional {
			return nil
		}
		var origin struct{ server, lsn, time string }
		if m.Prefix == OriginPrefix {
			if _, err := fmt.Sscanf(string(m.Content), `{"server_id":%q,"log_id":%q,"lsn":%q,"commit_time":%q}`,
				&origin.server, new(string), &origin.lsn, &origin.time); err == nil {
				h.event("origin %s %s %s", origin.server, origin.lsn, origin.time)
				return nil
			}
		}
		if m.Prefix != publish.MessagePrefix { // the logger's own come through its table
			h.event("message %s %x", m.Prefix, m.Content)
		}
		return nil
	}
	message, err := pglogrepl.Parse(data)
	if err != nil {
		return err
	}
	name := func(oid uint32) string { return relations[oid].Namespace + "." + relations[oid].RelationName }
	switch m := message.(type) {
	case *pglogrepl.BeginMessage:
		h.begin(m.Xid, int64(change.TimestampOf(m.CommitTime)))
	case *pglogrepl.CommitMessage:
		h.commit(uint64(m.TransactionEndLSN))
	case *pglogrepl.OriginMessage:
		h.event("origin %s", m.Name)
	case *pglogrepl.RelationMessage:
		relations[m.RelationID] = m
	case *pglogrepl.TypeMessage:
	case *pglogrepl.InsertMessage:
		if name(m.RelationID) == publish.Announcements.String() {
			if w.publications == string(m.Tuple.Columns[0].Data)+","+string(m.Tuple.Columns[0].Data)+"_insert" {
				h.event("message %s %x", publish.MessagePrefix, m.Tuple.Columns[1].Data)
			}
			return nil
		}
		h.event("insert %s  %s", name(m.RelationID), tupleText(m.Tuple))
	case *pglogrepl.UpdateMessage:
		kind := ""
		if m.OldTuple != nil {
			kind = string(m.OldTupleType)
		}
		h.event("update %s %s%s %s", name(m.RelationID), kind, tupleText(m.OldTuple), tupleText(m.NewTuple))
	case *pglogrepl.DeleteMessage:
		h.event("delete %s %s%s ", name(m.RelationID), string(m.OldTupleType), tupleText(m.OldTuple))
	case *pglogrepl.TruncateMessage:
		var names []string
		for _, oid := range m.RelationIDs {
			if name(oid) != publish.Announcements.String() {
				names = append(names, name(oid))
			}
		}
		if names == nil {
			return nil
		}
		h.event("truncate %v %v %v", names, m.Option&1 != 0, m.Option&2 != 0)
	default:
		return fmt.Errorf("unexpected %T", m)
	}
	return nil
}

func tupleText(tuple *pglogrepl.TupleData) string {
	if tuple == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range tuple.Columns {
		b.WriteByte(c.DataType)
		if c.DataType == 't' {
			valueText(&b, c.Data)
		}
	}
	return b.String()
}

// requireSame fails unless the log holds what the witness saw: each transaction once, in commit order, event by event.
func (w *witness) requireSame(t testing.TB, url string, log []transaction, to uint64) {
	t.Helper()
	want := w.read(t, url, to)
	got := slices.DeleteFunc(slices.Clone(log), func(x transaction) bool { return x.end <= w.from || x.end > to })
	for n := range min(len(want), len(got)) {
		a, b := &want[n], &got[n]
		if a.end != b.end || a.xid != b.xid || a.time != b.time || a.count != b.count || a.digest != b.digest {
			t.Fatalf("transaction %d differs:\nwant %v\ngot  %v", n, a, b)
		}
	}
	if len(want) != len(got) {
		t.Fatalf("%d transactions in the log, %d were committed", len(got), len(want))
	}
	if len(want) == 0 {
		t.Fatal("nothing was compared")
	}
	events := 0
	for _, x := range want {
		events += x.count
	}
	t.Logf("%d transactions with %d events are equal", len(want), events)
}
