package apply

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// seedVariable repeats a random test.
const seedVariable = "SEED"

// testSeed is the seed of a random test, which it prints.
func testSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// sourceDatabase is a primary's database whose changes a permanent slot keeps.
type sourceDatabase struct {
	t     testing.TB
	url   string
	conn  *pgx.Conn
	slot  string
	start change.LSN // of the slot
}

// newSourceDatabase makes a database with a schema, a publication that lists every ordinary permanent table, and a slot.
func newSourceDatabase(t testing.TB, schema string) *sourceDatabase {
	t.Helper()
	s := &sourceDatabase{t: t, url: pgtest.Shared(t).Database(t)}
	s.conn = pgtest.Connect(t, s.url)
	pgtest.Exec(t, s.conn, schema)
	tables := textRows(t, s.conn, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'`)
	if pgtest.Shared(t).Major() >= 18 {
		// There an UPDATE fails when the replica identity has a generated column, so the logger does not publish it either.
		tables = slices.DeleteFunc(tables, func(name string) bool { return name == "kinds.keyless_generated" })
	}
	pgtest.Exec(t, s.conn, "CREATE PUBLICATION listed FOR TABLE ONLY "+strings.Join(tables, ", ONLY "))
	s.slot = fmt.Sprintf("apply_%d", time.Now().UnixNano())
	start, err := change.ParseLSN(pgtest.QueryRow[string](t, s.conn, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", s.slot))
	if err != nil {
		t.Fatal(err)
	}
	s.start = start
	return s
}

const lastMessage = "apply test: last"

// read returns the plugin's messages of everything that is committed, up to a message of its own.
func (s *sourceDatabase) read() [][]byte {
	s.t.Helper()
	pgtest.Exec(s.t, s.conn, "SELECT pg_logical_emit_message(false, $1, '')", lastMessage)
	pgtest.Exec(s.t, s.conn, "BEGIN; CREATE TEMP TABLE flush () ON COMMIT DROP; COMMIT")
	ctx, cancel := context.WithTimeout(s.t.Context(), applyDeadline)
	defer cancel()
	conn, err := postgres.ConnectReplication(ctx, s.url, "apply test")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	err = pglogrepl.StartReplication(ctx, conn, s.slot, 0, pglogrepl.StartReplicationOptions{
		Mode:       pglogrepl.LogicalReplication,
		PluginArgs: []string{"proto_version '1'", "publication_names 'listed'", "messages 'true'"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	var messages [][]byte
	for {
		received, err := conn.ReceiveMessage(ctx)
		if err != nil {
			s.t.Fatalf("receive message %d: %v", len(messages)+1, err)
		}
		if problem, ok := received.(*pgproto3.ErrorResponse); ok {
			s.t.Fatal(pgconn.ErrorResponseToPgError(problem))
		}
		data, ok := received.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		wal, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			s.t.Fatal(err)
		}
		messages = append(messages, bytes.Clone(wal.WALData))
		if wal.WALData[0] == 'M' && bytes.Contains(wal.WALData, []byte(lastMessage)) {
			return messages
		}
	}
}

// encodeLog makes a log of what the source sent. With r, padding is strewn in, so that transactions and large values are cut
// into blocks in many places.
func encodeLog(t testing.TB, s *sourceDatabase, messages [][]byte, every int, r *rand.Rand) *testLog {
	t.Helper()
	l := newTestLog(t)
	l.start, l.lsn, l.every = s.start, s.start, every
	l.builder = block.NewBuilder(block.State{LogID: l.id, Number: 4, Through: s.start})
	relations := map[uint32]*change.Relation{}
	var d pgoutput.Decoder
	for _, data := range messages {
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		l.cutFull()
		switch kind {
		case pgoutput.KindBegin:
			l.must(l.builder.Begin(block.Begin{CommitLSN: d.Begin.FinalLSN, CommitTime: change.Timestamp(d.Begin.CommitTime), XID: d.Begin.XID}))
			l.xid = d.Begin.XID
		case pgoutput.KindCommit:
			l.lsn = d.Commit.EndLSN
			l.must(l.builder.Commit(block.Commit{
				CommitLSN: d.Commit.CommitLSN, EndLSN: l.lsn, CommitTime: change.Timestamp(d.Commit.CommitTime), XID: l.xid,
			}))
			if l.waiting++; every > 0 && l.waiting >= every {
				l.flush()
			}
		case pgoutput.KindRelation:
			relation := d.Relation
			relation.Columns = slices.Clone(relation.Columns)
			relations[relation.OID] = &relation
		case pgoutput.KindInsert:
			l.change(block.Source{Operation: block.Insert, Relation: l.use(relations[d.Insert.RelationOID]), New: d.Insert.New})
		case pgoutput.KindUpdate:
			l.change(block.Source{
				Operation: block.Update, Relation: l.use(relations[d.Update.RelationOID]), OldIsKey: d.Update.OldKind == pgoutput.OldKey,
				HasOld: d.Update.OldKind != pgoutput.OldNone, Old: d.Update.Old, New: d.Update.New,
			})
		case pgoutput.KindDelete:
			l.change(block.Source{
				Operation: block.Delete, Relation: l.use(relations[d.Delete.RelationOID]), OldIsKey: d.Delete.OldKind == pgoutput.OldKey,
				HasOld: true, Old: d.Delete.Old,
			})
		case pgoutput.KindTruncate:
			var list []*change.Relation
			for _, oid := range d.Truncate.RelationOIDs {
				list = append(list, relations[oid])
			}
			l.truncate(d.Truncate.Cascade, d.Truncate.RestartIdentity, list...)
		case pgoutput.KindMessage:
			if d.Message.Transactional {
				l.must(l.builder.Message(block.Message{Prefix: d.Message.Prefix, Content: d.Message.Content, LSN: d.Message.LSN}))
			}
		}
		inside := kind == pgoutput.KindInsert || kind == pgoutput.KindUpdate || kind == pgoutput.KindDelete || kind == pgoutput.KindTruncate
		if r != nil && inside && r.IntN(100) == 0 {
			l.padding(1 + r.IntN(600_000))
		}
	}
	l.flush()
	return l
}
