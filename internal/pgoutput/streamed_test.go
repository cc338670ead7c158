package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

var frames = []struct {
	data []byte
	want Frame
}{
	{enc('S', u32(7), byte(1)), Frame{Kind: FrameStart, XID: 7, First: true}},
	{enc('S', u32(1<<32-1), byte(0)), Frame{Kind: FrameStart, XID: 1<<32 - 1}},
	{enc('E'), Frame{Kind: FrameStop}},
	{enc('c', u32(7), byte(0), u64(1<<40), u64(1<<40+8), u64(99)), Frame{Kind: FrameCommit, XID: 7, Commit: Commit{CommitLSN: 1 << 40, EndLSN: 1<<40 + 8, CommitTime: 99}}},
	{enc('A', u32(7), u32(8)), Frame{Kind: FrameAbort, XID: 7, SubXID: 8}},
	{enc('A', u32(7), u32(7), u64(1), u64(2)), Frame{Kind: FrameAbort, XID: 7, SubXID: 7}}, // of protocol 4
}

func TestDecodeFrame(t *testing.T) {
	for _, f := range frames {
		got, ok, err := DecodeFrame(f.data)
		if got != f.want || !ok || err != nil {
			t.Errorf("DecodeFrame(%q) = %+v, %v, %v; want %+v", f.data, got, ok, err, f.want)
		}
		for n := 1; n < len(f.data); n++ {
			if n == 1+4+4 && f.data[0] == 'A' {
				continue // that of protocol 2
			}
			if got, ok, err := DecodeFrame(f.data[:n]); got != (Frame{}) || !ok || !errors.Is(err, ErrMalformed) {
				t.Errorf("DecodeFrame(%q) = %+v, %v, %v; want ErrMalformed", f.data[:n], got, ok, err)
			}
		}
		if got, ok, err := DecodeFrame(append(bytes.Clone(f.data), 0)); got != (Frame{}) || !ok || !errors.Is(err, ErrMalformed) {
			t.Errorf("DecodeFrame(%q and a byte) = %+v, %v, %v; want ErrMalformed", f.data, got, ok, err)
		}
	}
	for _, g := range goldens {
		if g.data[0] == 'A' {
			continue
		}
		if got, ok, err := DecodeFrame(g.data); got != (Frame{}) || ok || err != nil {
			t.Errorf("DecodeFrame(%q) = %+v, %v, %v; it is no frame", g.data, got, ok, err)
		}
	}
	if _, ok, err := DecodeFrame(nil); ok || err != nil {
		t.Error("an empty message is a frame")
	}
	for _, unknown := range [][]byte{enc('S', u32(7), byte(2)), enc('c', u32(7), byte(1), u64(1), u64(2), u64(3))} {
		if _, _, err := DecodeFrame(unknown); !errors.Is(err, ErrMalformed) {
			t.Errorf("DecodeFrame(%q) = %v, want ErrMalformed for unknown flags", unknown, err)
		}
	}
}

func TestUnstream(t *testing.T) {
	for _, g := range goldens {
		streamed := enc(g.data[0], u32(77), g.data[1:])
		if g.data[0] == 'O' {
			streamed = g.data
		}
		if got, err := Unstream([]byte("before"), streamed); string(got) != "before"+string(g.data) || err != nil {
			t.Errorf("Unstream(%q) = %q, %v; want %q", streamed, got, err, g.data)
		}
	}
	for _, short := range [][]byte{nil, {'I'}, enc('I', u16(1), byte(1))} {
		if got, err := Unstream([]byte("before"), short); string(got) != "before" || !errors.Is(err, ErrMalformed) {
			t.Errorf("Unstream(%q) = %q, %v; want ErrMalformed", short, got, err)
		}
	}
}

// TestStreamed reads a transaction in pieces, with what protocol 1 makes of the same one beside it: after its pieces are put together
// they are the same messages.
func TestStreamed(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `create table t (id int primary key, v text); create table u (id int primary key); create publication pgoutput_test for table t, u`)
	load := func() {
		pgtest.Exec(t, conn, `begin; savepoint s; insert into u values (1); insert into t select n, repeat('x', 100) from generate_series(1, 3000) n; rollback to s;
			insert into u values (2); insert into t select n, repeat('y', 100) from generate_series(1, 3000) n;
			savepoint s; delete from t where id < 2000; release s; truncate u; select pg_logical_emit_message(true, 'p', 'c');
			update t set v = v || 'z'; commit`)
		pgtest.Exec(t, conn, `begin; insert into t select n, repeat('x', 100) from generate_series(5000, 8000) n; rollback`)
		pgtest.Exec(t, conn, "delete from t")
	}
	whole := withoutShapes(streamWith(t, url, []string{"proto_version '1'"}, load))
	pieces := streamWith(t, url, []string{"proto_version '2'", "streaming 'on'"}, load)
	var put [][]byte
	open := map[uint32][][]byte{}
	subs := map[uint32]map[uint32]int{} // where each subtransaction began
	var current uint32
	count := map[FrameKind]int{}
	for _, data := range pieces {
		f, isFrame, err := DecodeFrame(data)
		if err != nil {
			t.Fatal(err)
		}
		count[f.Kind]++
		switch {
		case !isFrame && current == 0:
			put = append(put, data)
		case !isFrame:
			message, err := Unstream(nil, data)
			if err != nil {
				t.Fatal(err)
			}
			xid := binary.BigEndian.Uint32(data[1:])
			if _, known := subs[current][xid]; !known {
				subs[current][xid] = len(open[current])
			}
			open[current] = append(open[current], message)
		case f.Kind == FrameStart:
			if current = f.XID; f.First {
				subs[current] = map[uint32]int{}
			}
		case f.Kind == FrameStop:
			current = 0
		case f.Kind == FrameAbort && f.XID == f.SubXID:
			delete(open, f.XID)
		case f.Kind == FrameAbort:
			if at, known := subs[f.XID][f.SubXID]; known {
				open[f.XID] = open[f.XID][:at]
			}
		case f.Kind == FrameCommit:
			put = append(put, enc('B', u64(f.Commit.CommitLSN), u64(f.Commit.CommitTime), u32(f.XID)))
			put = append(put, open[f.XID]...)
			put = append(put, enc('C', byte(0), u64(f.Commit.CommitLSN), u64(f.Commit.EndLSN), u64(f.Commit.CommitTime)))
			delete(open, f.XID)
		}
	}
	put = withoutShapes(put)
	// A subtransaction and a transaction were rolled back, two have committed.
	if count[FrameStart] < 3 || count[FrameStart] != count[FrameStop] || count[FrameCommit] != 2 || count[FrameAbort] != 2 || len(open) != 0 {
		t.Errorf("frames: %v, %d transactions are open", count, len(open))
	}
	if len(put) != len(whole) {
		t.Fatalf("%d messages in pieces, %d at once", len(put), len(whole))
	}
	requireText(t, anonymous(dumpAll(t, put)), anonymous(dumpAll(t, whole)))
}

func withoutShapes(messages [][]byte) (list [][]byte) {
	for _, data := range messages {
		if data[0] != 'R' && data[0] != 'Y' {
			list = append(list, data)
		}
	}
	return list
}
