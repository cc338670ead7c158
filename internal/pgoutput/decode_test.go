package pgoutput

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/seed0419d559/syncline/internal/change"
)

// goldens has every kind of message with every optional part, byte by byte as PostgreSQL writes it.
var goldens = []struct {
	name string
	data []byte
	kind Kind
	got  func(*Decoder) any
	want any
}{
	{
		"begin", []byte("B\x00\x00\x00\x16\xb3\x74\xd8\x48\x00\x00\x00\x00\x00\x0f\x42\x41\x00\x00\x02\xdb"), KindBegin,
		func(d *Decoder) any { return d.Begin },
		Begin{FinalLSN: 0x16B374D848, CommitTime: 1_000_001, XID: 731},
	},
	{
		"begin before 2000", enc('B', u64(1), []byte("\xff\xff\xff\xff\xff\xff\xff\xff"), u32(0xffffffff)), KindBegin,
		func(d *Decoder) any { return d.Begin },
		Begin{FinalLSN: 1, CommitTime: -1, XID: 0xffffffff},
	},
	{
		"commit", enc('C', byte(0), u64(0x100), u64(0x130), u64(7)), KindCommit,
		func(d *Decoder) any { return d.Commit },
		Commit{CommitLSN: 0x100, EndLSN: 0x130, CommitTime: 7},
	},
	{
		"commit in the year 112064", enc('C', byte(0), u64(1), u64(2), u64(3473274981027680304)), KindCommit,
		func(d *Decoder) any { return d.Commit },
		Commit{CommitLSN: 1, EndLSN: 2, CommitTime: 3473274981027680304},
	},
	{
		"origin", enc('O', u64(0x99), str("pg_16389")), KindOrigin,
		func(d *Decoder) any { return d.Origin },
		Origin{CommitLSN: 0x99, Name: "pg_16389"},
	},
	{
		"relation", enc('R', u32(16384), str("Läden"), str(`or"ders`), 'd', u16(2),
			byte(1), str("id"), u32(20), u32(0xffffffff), byte(0), str("a b"), u32(1043), u32(24)), KindRelation,
		func(d *Decoder) any { return d.Relation },
		Relation{OID: 16384, Schema: "Läden", Name: `or"ders`, Identity: change.IdentityDefault, Columns: []Column{
			{Key: true, Name: "id", TypeOID: 20, TypeModifier: -1}, {Name: "a b", TypeOID: 1043, TypeModifier: 24},
		}},
	},
	{
		"relation without columns", enc('R', u32(16384), str("public"), str("t"), 'n', u16(0)), KindRelation,
		func(d *Decoder) any { return d.Relation },
		Relation{OID: 16384, Schema: "public", Name: "t", Identity: change.IdentityNothing, Columns: []Column{}},
	},
	{
		"relation of pg_catalog", enc('R', u32(4000000000), str(""), str("t"), 'f', u16(0)), KindRelation,
		func(d *Decoder) any { return d.Relation },
		Relation{OID: 4000000000, Schema: "pg_catalog", Name: "t", Identity: change.IdentityFull, Columns: []Column{}},
	},
	{
		"type", enc('Y', u32(16400), str("public"), str("mood")), KindType,
		func(d *Decoder) any { return d.Type },
		Type{OID: 16400, Schema: "public", Name: "mood"},
	},
	{
		"type of pg_catalog", enc('Y', u32(16400), str(""), str("t")), KindType,
		func(d *Decoder) any { return d.Type },
		Type{OID: 16400, Schema: "pg_catalog", Name: "t"},
	},
	{
		"insert", []byte("I\x00\x00\x40\x00N\x00\x04t\x00\x00\x00\x0242nut\x00\x00\x00\x00"), KindInsert,
		func(d *Decoder) any { return []any{d.Insert.RelationOID, d.Insert.New.N, columns(d.Insert.New)} },
		[]any{uint32(16384), 4, []column{text("42"), null, unchanged, text("")}},
	},
	{
		"insert without columns", enc('I', u32(1), 'N', u16(0)), KindInsert,
		func(d *Decoder) any { return []any{d.Insert.RelationOID, d.Insert.New.N, columns(d.Insert.New)} },
		[]any{uint32(1), 0, []column{}},
	},
	{
		"insert in binary", enc('I', u32(1), 'N', row(column{ValueBinary, "\x00\xff"})), KindInsert,
		func(d *Decoder) any { return columns(d.Insert.New) },
		[]column{{ValueBinary, "\x00\xff"}},
	},
	{
		"update", enc('U', u32(1), 'N', row(text("1"), unchanged)), KindUpdate,
		func(d *Decoder) any {
			return []any{d.Update.OldKind, d.Update.Old, d.Update.New.N, columns(d.Update.New)}
		},
		[]any{OldNone, Tuple{}, 2, []column{text("1"), unchanged}},
	},
	{
		"update of the key", enc('U', u32(1), 'K', row(text("1"), null), 'N', row(text("2"), unchanged)), KindUpdate,
		func(d *Decoder) any { return []any{d.Update.OldKind, columns(d.Update.Old), columns(d.Update.New)} },
		[]any{OldKey, []column{text("1"), null}, []column{text("2"), unchanged}},
	},
	{
		"update under full", enc('U', u32(1), 'O', row(text("1"), null), 'N', row(text("1"), text("N"))), KindUpdate,
		func(d *Decoder) any { return []any{d.Update.OldKind, columns(d.Update.Old), columns(d.Update.New)} },
		[]any{OldFull, []column{text("1"), null}, []column{text("1"), text("N")}},
	},
	{
		"delete by key", enc('D', u32(1), 'K', row(text("1"), null)), KindDelete,
		func(d *Decoder) any { return []any{d.Delete.RelationOID, d.Delete.OldKind, columns(d.Delete.Old)} },
		[]any{uint32(1), OldKey, []column{text("1"), null}},
	},
	{
		"delete under full", enc('D', u32(1), 'O', row(text("1"), text("x"))), KindDelete,
		func(d *Decoder) any { return []any{d.Delete.OldKind, d.Delete.Old.N, columns(d.Delete.Old)} },
		[]any{OldFull, 2, []column{text("1"), text("x")}},
	},
	{
		"truncate", enc('T', u32(1), byte(0), u32(16384)), KindTruncate,
		func(d *Decoder) any { return d.Truncate },
		Truncate{RelationOIDs: []uint32{16384}},
	},
	{
		"truncate with cascade", enc('T', u32(2), byte(1), u32(16384), u32(16390)), KindTruncate,
		func(d *Decoder) any { return d.Truncate },
		Truncate{Cascade: true, RelationOIDs: []uint32{16384, 16390}},
	},
	{
		"truncate with restart identity", enc('T', u32(1), byte(2), u32(16384)), KindTruncate,
		func(d *Decoder) any { return d.Truncate },
		Truncate{RestartIdentity: true, RelationOIDs: []uint32{16384}},
	},
	{
		"transactional message", enc('M', byte(1), u64(0x200), str("syncline.origin"), u32(3), []byte("a\x00b")), KindMessage,
		func(d *Decoder) any { return d.Message },
		Message{Transactional: true, LSN: 0x200, Prefix: "syncline.origin", Content: []byte("a\x00b")},
	},
	{
		"plain empty message", enc('M', byte(0), u64(0x200), str(""), u32(0)), KindMessage,
		func(d *Decoder) any { return d.Message },
		Message{LSN: 0x200, Content: []byte{}},
	},
	{
		"stray stream abort", enc('A', u32(731), u32(732)), KindIgnored, func(*Decoder) any { return nil }, nil,
	},
}

func TestDecode(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			var d Decoder
			kind, err := d.Decode(g.data)
			if err != nil || kind != g.kind {
				t.Fatalf("Decode = %v, %v; want %v", kind, err, g.kind)
			}
			if got := g.got(&d); !reflect.DeepEqual(got, g.want) {
				t.Errorf("got  %+v\nwant %+v", got, g.want)
			}
			if kind != KindIgnored && !bytes.Equal(encode(&d, kind), g.data) {
				t.Errorf("encoded again: %q\nwant           %q", encode(&d, kind), g.data)
			}
		})
	}
}

// Every message says its own length: no shorter and no longer one may pass for it, and a refused one changes nothing.
func TestDecodeCutAndLengthened(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			var d Decoder
			for n := range g.data {
				if _, err := d.Decode(g.data[:n:n]); !errors.Is(err, ErrMalformed) {
					t.Errorf("the first %d of %d bytes: %v, want ErrMalformed", n, len(g.data), err)
				}
			}
			if _, err := d.Decode(enc(g.data, byte(0))); !errors.Is(err, ErrMalformed) {
				t.Errorf("one byte more: %v, want ErrMalformed", err)
			}
			if !reflect.DeepEqual(d, Decoder{}) {
				t.Errorf("refused messages left %+v", d)
			}
		})
	}
}

// The widest row that a message can hold, and values around a megabyte.
func TestDecodeLargeRows(t *testing.T) {
	wide := slices.Repeat([]column{null, text("x"), unchanged, text("")}, math.MaxUint16/4)
	long := []column{text(strings.Repeat("a", 1<<20)), text(strings.Repeat("b", 1<<20+1)), null}
	for _, cols := range [][]column{wide, long} {
		var d Decoder
		if _, err := d.Decode(enc('U', u32(1), 'O', row(cols...), 'N', row(cols...))); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(columns(d.Update.Old), cols) || !slices.Equal(columns(d.Update.New), cols) {
			t.Errorf("a row of %d columns changed", len(cols))
		}
	}
}

func TestStreamAbortOfProtocol4(t *testing.T) {
	var d Decoder
	kind, err := d.Decode(enc('A', u32(1), u32(2), u64(3), u64(4)))
	if kind != KindIgnored || err != nil {
		t.Errorf("Decode = %v, %v", kind, err)
	}
}

// evil messages must be refused with the text, and before anything is allocated for what they only claim to have.
var evil = []struct {
	data []byte
	text string
}{
	{nil, "decode message: " + ErrMalformed.Error() + ": it is empty"},
	{[]byte("S\x00\x00\x00\x01\x01"), `decode message: ` + ErrUnknownMessage.Error() + `: 'S' (0x53)`},
	{[]byte("\x00"), "0x00"},
	{[]byte("\xff\xff\xff\xff"), "0xff"},
	{[]byte("i\x00\x00\x40\x00N\x00\x00"), "'i'"},
	{enc('C', byte(1), u64(1), u64(2), u64(3)), "decode commit message: " + ErrMalformed.Error() + ": unknown flags 0x01, at byte 2 of 26"},
	{enc('O', u64(1), []byte("no end")), "string without an end"},
	{enc('R', u32(1), []byte("no end")), "string without an end"},
	{enc('R', u32(1), str("s"), str("t"), 'x', u16(0)), "unknown replica identity 'x'"},
	{enc('R', u32(1), str("s"), str("t"), 'd', u16(65535)), "65535 columns should follow"},
	{enc('R', u32(1), str("s"), str("t"), 'd', u16(65535), make([]byte, 6553)), "65535 columns should follow"},
	{enc('R', u32(1), str("s"), str("t"), 'd', u16(1), byte(2), str("c"), u32(1), u32(1)), "unknown flags 0x02"},
	{enc('R', u32(1), str("s"), str("t"), 'd', u16(1), byte(1), bytes.Repeat([]byte("x"), 99)), "string without an end"},
	{enc('I', u32(1), 'K', row(text("1"))), "tuple 'K' where 'N' should stand"},
	{enc('I', u32(1), 'N', u16(65535)), "65535 of 65535 columns are missing"},
	{enc('I', u32(1), 'N', u16(65535), bytes.Repeat([]byte("n"), 65534)), "1 of 65535 columns are missing"},
	{enc('I', u32(1), 'N', u16(1), 't', u32(0xffffffff)), "should have 4294967295 bytes, 0 are left"},
	{enc('I', u32(1), 'N', u16(1), 't', u32(0x80000000), "x"[0]), "should have 2147483648 bytes, 1 are left"},
	{enc('I', u32(1), 'N', u16(1), 't', u32(0x7fffffff)), "should have 2147483647 bytes, 0 are left"},
	{enc('I', u32(1), 'N', u16(1), 'b', u32(2), "x"[0]), "should have 2 bytes, 1 are left"},
	{enc('I', u32(1), 'N', u16(1), 'x'), "column 1 of 1 is of unknown kind 'x'"},
	{enc('I', u32(1), 'N', u16(2), 'n', 't', u16(0)), "column 2 of 2 has no length"},
	{enc('I', u32(1), 'N', u16(1), 'n', 'n'), "1 bytes too many"},
	{enc('U', u32(1), 'X', row()), "unknown tuple 'X' before the new row"},
	{enc('U', u32(1), 'K', row(), 'K', row()), "tuple 'K' where 'N' should stand"},
	{enc('U', u32(1), 'O', u16(1), 't', u32(0xfffffffb), 'N', row()), "should have 4294967291 bytes"},
	{enc('D', u32(1), 'N', row()), "unknown tuple 'N' as the old row"},
	{enc('T', u32(0xffffffff), byte(0)), "4294967295 relations should follow"},
	{enc('T', u32(0x40000001), byte(0), u32(1)), "1073741825 relations should follow"}, // times 4 wraps to 4
	{enc('T', u32(1), byte(4), u32(1)), "unknown flags 0x04"},
	{enc('M', byte(2), u64(1), str("p"), u32(0)), "unknown flags 0x02"},
	{enc('M', byte(1), u64(1), str("p"), u32(0xffffffff)), "4294967295 bytes of content should follow"},
	{enc('M', byte(1), u64(1), str("p"), u32(1), []byte("xy")), "1 bytes of content should follow"},
	{enc('A', u32(1), u32(2), u64(3)), "8 bytes too many"},
}

func TestDecodeEvil(t *testing.T) {
	for _, e := range evil {
		var d Decoder
		kind, err := d.Decode(e.data)
		if err == nil || kind != 0 || !strings.Contains(err.Error(), e.text) {
			t.Errorf("Decode(%.40q) = %v, %v; want %q", e.data, kind, err, e.text)
		}
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknownMessage) {
			t.Errorf("Decode(%.40q) = %v: neither ErrMalformed nor ErrUnknownMessage", e.data, err)
		}
		if size := allocated(func() { _, _ = d.Decode(e.data) }); size > 2<<10 {
			t.Errorf("Decode(%.40q) allocates %d bytes", e.data, size)
		}
	}
}

// allocated returns the bytes that f allocates; the smallest of a few runs, as other goroutines are counted too.
func allocated(f func()) uint64 {
	least := uint64(math.MaxUint64)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// The error of a damaged row goes to logs and answers of the API, where no value may stand.
func TestErrorsKeepValuesSecret(t *testing.T) {
	var d Decoder
	_, err := d.Decode(enc('I', u32(1), 'N', u16(2), 't', u32(6), []byte("secret"), 't', u32(99), []byte("hidden")))
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("error = %v", err)
	}
}

func TestOwnership(t *testing.T) {
	var d Decoder
	decode := func(data []byte) []byte {
		t.Helper()
		if _, err := d.Decode(data); err != nil {
			t.Fatal(err)
		}
		return data
	}
	inside := func(view, data []byte) bool {
		at := uintptr(unsafe.Pointer(unsafe.SliceData(view)))
		start := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
		return at >= start && at+uintptr(len(view)) <= start+uintptr(len(data))
	}

	data := decode(enc('U', u32(1), 'O', row(text("old")), 'N', row(text("new"), text("more"))))
	old, reader := d.Update.Old, d.Update.New.Columns()
	_, value := reader.Next()
	if !inside(old.Raw, data) || !inside(d.Update.New.Raw, data) || !inside(value, data) {
		t.Error("tuples are not views of the data")
	}
	if before := string(data); string(append(value, "scribble"...)) != "newscribble" || string(data) != before {
		t.Error("appending to a value overwrites its neighbour")
	}

	data = decode(enc('M', byte(1), u64(1), str("p"), u32(1), []byte("c")))
	if !inside(d.Message.Content, data) {
		t.Error("content is not a view of the data")
	}
	data = decode(enc('R', u32(1), str("s"), str("t"), 'd', u16(1), byte(1), str("c"), u32(1), u32(1)))
	first := d.Relation
	clear(data)
	decode(enc('R', u32(1), str("s"), str("t"), 'd', u16(1), byte(1), str("other"), u32(1), u32(1)))
	if first.Schema != "s" || first.Columns[0].Name != "c" {
		t.Errorf("a kept relation changed to %+v", first)
	}
	decode(enc('T', u32(1), byte(0), u32(7)))
	oids := d.Truncate.RelationOIDs
	decode(enc('T', u32(1), byte(0), u32(8)))
	if oids[0] != 7 {
		t.Error("kept relation ids of a truncate changed")
	}
}

func TestTupleReaderEnds(t *testing.T) {
	var c TupleReader
	if kind, value := c.Next(); kind != 0 || value != nil || c.More() {
		t.Errorf("Next after the last column = %q, %q", kind, value)
	}
}

func TestAllocations(t *testing.T) {
	cols := []column{text("4711"), null, unchanged, text(strings.Repeat("x", 3000)), text("")}
	messages := [][]byte{
		enc('B', u64(1), u64(2), u32(3)),
		enc('O', u64(1), str("a name that is longer than 32 bytes, so not on the stack")),
		enc('M', byte(1), u64(1), str("a prefix that is longer than 32 bytes, so not on the stack"), u32(1), []byte("x")),
		enc('I', u32(1), 'N', row(cols...)),
		enc('U', u32(1), 'N', row(cols...)),
		enc('U', u32(1), 'K', row(cols...), 'N', row(cols...)),
		enc('U', u32(1), 'O', row(cols...), 'N', row(cols...)),
		enc('D', u32(1), 'O', row(cols...)),
		enc('A', u32(1), u32(2)),
		enc('C', byte(0), u64(1), u64(2), u64(3)),
	}
	var d Decoder
	total := 0
	allocs := testing.AllocsPerRun(100, func() {
		for _, data := range messages {
			if _, err := d.Decode(data); err != nil {
				t.Fatal(err)
			}
		}
		for _, tuple := range []Tuple{d.Insert.New, d.Update.Old, d.Update.New, d.Delete.Old} {
			for c := tuple.Columns(); c.More(); {
				_, value := c.Next()
				total += len(value)
			}
		}
	})
	if allocs != 0 || total == 0 {
		t.Errorf("%v allocations for a transaction, read %d bytes", allocs, total)
	}
}

func TestTime(t *testing.T) {
	for _, c := range []struct {
		micros int64
		want   string
	}{
		{0, "2000-01-01T00:00:00Z"},
		{1, "2000-01-01T00:00:00.000001Z"},
		{-1, "1999-12-31T23:59:59.999999Z"},
		{820584000_123456, "2026-01-01T12:00:00.123456Z"},
		{math.MinInt64, "-290278-12-22T19:59:05.224192Z"}, // must not wrap around
	} {
		got := Time(c.micros)
		if got.Format(time.RFC3339Nano) != c.want || got.Location() != time.UTC {
			t.Errorf("Time(%d) = %v, want %s", c.micros, got, c.want)
		}
	}
}

func TestKindString(t *testing.T) {
	if KindBegin.String() != "begin" || KindIgnored.String() != "ignored" || Kind(99).String() != "kind 99" {
		t.Error(KindBegin, KindIgnored, Kind(99))
	}
}
