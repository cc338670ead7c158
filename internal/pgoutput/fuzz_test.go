package pgoutput

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/jackc/pglogrepl"

	"github.com/seed0419d559/syncline/internal/change"
)

// FuzzDecode: whatever the bytes, a message is either refused with a sentinel, or what was decoded is exactly what the
// bytes say: encoded again it gives the same bytes, and pglogrepl reads the same values.
func FuzzDecode(f *testing.F) {
	for _, g := range goldens {
		f.Add(g.data)
	}
	for _, e := range evil {
		f.Add(e.data)
	}
	for _, data := range transcript(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		var d Decoder
		kind, err := d.Decode(data)
		if !bytes.Equal(data, before) {
			t.Fatal("Decode wrote to its input")
		}
		if err != nil {
			if kind != 0 || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknownMessage) {
				t.Fatalf("Decode = %v, %v", kind, err)
			}
			if !reflect.DeepEqual(d, Decoder{}) {
				t.Fatalf("a refused message left %+v", d)
			}
			return
		}
		for _, tuple := range []Tuple{d.Insert.New, d.Update.Old, d.Update.New, d.Delete.Old} {
			if n := len(columns(tuple)); n != tuple.N {
				t.Fatalf("%d columns read, N is %d", n, tuple.N)
			}
		}
		if kind == KindIgnored {
			return
		}
		// "pg_catalog" in full is the one thing that PostgreSQL does not write and Decode takes.
		if got := encode(&d, kind); !bytes.Equal(got, bytes.Replace(data, []byte("pg_catalog\x00"), []byte{0}, 1)) && !bytes.Equal(got, data) {
			t.Fatalf("decoded  %q\nencoded  %q", data, got)
		}
		requireAgreement(t, &d, kind, data)
	})
}

// FuzzRow builds rows that are right by construction: none may be refused. Each byte of shape is a column; value is cut
// into the columns' values.
func FuzzRow(f *testing.F) {
	f.Add(uint32(16384), []byte("ntub"), []byte("abcdefghij"), byte('I'))
	f.Add(uint32(0), []byte{}, []byte{}, byte('U'))
	f.Add(uint32(1<<32-1), bytes.Repeat([]byte{22}, 20), []byte("values of a handful of bytes"), byte('O'))
	f.Fuzz(func(t *testing.T, oid uint32, shape, value []byte, form byte) {
		shape = shape[:min(len(shape), math.MaxUint16)]
		cols := make([]column, len(shape))
		for i, b := range shape {
			switch b % 4 {
			case 0:
				cols[i] = null
			case 1:
				cols[i] = unchanged
			default:
				n := min(int(b/4), len(value))
				cols[i] = column{[]byte("tb")[b%4-2], string(value[:n])}
				value = value[n:]
			}
		}
		var data []byte
		var kind Kind
		switch form % 5 {
		case 0:
			kind, data = KindInsert, enc('I', u32(oid), 'N', row(cols...))
		case 1:
			kind, data = KindUpdate, enc('U', u32(oid), 'N', row(cols...))
		case 2:
			kind, data = KindUpdate, enc('U', u32(oid), 'K', row(cols[:len(cols)/2]...), 'N', row(cols...))
		case 3:
			kind, data = KindUpdate, enc('U', u32(oid), 'O', row(cols...), 'N', row(cols...))
		case 4:
			kind, data = KindDelete, enc('D', u32(oid), 'O', row(cols...))
		}
		var d Decoder
		got, err := d.Decode(data)
		if err != nil || got != kind {
			t.Fatalf("Decode(%q) = %v, %v; want %v", data, got, err, kind)
		}
		if again := encode(&d, kind); !bytes.Equal(again, data) {
			t.Fatalf("built    %q\nencoded  %q", data, again)
		}
		requireAgreement(t, &d, kind, data)
	})
}

// requireAgreement compares a decoded message with what pglogrepl reads from the same bytes. pglogrepl is only given
// messages that Decode accepted: it trusts lengths and would allocate gigabytes for others. It wrongly refuses rows and
// truncates without columns and tables, and its times wrap around after 2262, as UnixNano does.
func requireAgreement(t *testing.T, d *Decoder, kind Kind, data []byte) {
	t.Helper()
	if kind == KindIgnored || kind == KindInsert && d.Insert.New.N == 0 || kind == KindTruncate && len(d.Truncate.RelationOIDs) == 0 {
		return
	}
	other, err := pglogrepl.Parse(data)
	if err != nil {
		t.Fatalf("Decode accepts %q, pglogrepl says %v", data, err)
	}
	var got, want any
	switch m := other.(type) {
	case *pglogrepl.BeginMessage:
		got = []any{d.Begin.FinalLSN, Time(d.Begin.CommitTime).UnixNano(), d.Begin.XID}
		want = []any{LSN(m.FinalLSN), m.CommitTime.UnixNano(), m.Xid}
	case *pglogrepl.CommitMessage:
		got = []any{d.Commit.Flags, d.Commit.CommitLSN, d.Commit.EndLSN, Time(d.Commit.CommitTime).UnixNano()}
		want = []any{m.Flags, LSN(m.CommitLSN), LSN(m.TransactionEndLSN), m.CommitTime.UnixNano()}
	case *pglogrepl.OriginMessage:
		got, want = d.Origin, Origin{LSN(m.CommitLSN), m.Name}
	case *pglogrepl.RelationMessage:
		got, want = withoutCatalog(d.Relation), withoutCatalog(relationOf(m))
	case *pglogrepl.TypeMessage:
		got = Type{d.Type.OID, string(schema(d.Type.Schema)), d.Type.Name}
		want = Type{m.DataType, string(schema(m.Namespace)), m.Name}
	case *pglogrepl.InsertMessage:
		got, want = []any{d.Insert.RelationOID, columns(d.Insert.New)}, []any{m.RelationID, columnsOf(m.Tuple)}
	case *pglogrepl.UpdateMessage:
		got = []any{d.Update.RelationOID, d.Update.OldKind, columns(d.Update.Old), columns(d.Update.New)}
		old := m.OldTupleType
		want = []any{m.RelationID, old, columnsOf(m.OldTuple), columnsOf(m.NewTuple)}
	case *pglogrepl.DeleteMessage:
		got = []any{d.Delete.RelationOID, d.Delete.OldKind, columns(d.Delete.Old)}
		want = []any{m.RelationID, m.OldTupleType, columnsOf(m.OldTuple)}
	case *pglogrepl.TruncateMessage:
		got = d.Truncate
		want = Truncate{m.Option&1 != 0, m.Option&2 != 0, m.RelationIDs}
	case *pglogrepl.LogicalDecodingMessage:
		got, want = d.Message, Message{m.Transactional, LSN(m.LSN), m.Prefix, m.Content}
	default:
		t.Fatalf("pglogrepl reads %q as %T", data, other)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("message   %q\ndecoded   %+v\npglogrepl %+v", data, got, want)
	}
}

func withoutCatalog(r Relation) Relation {
	r.Schema = string(schema(r.Schema))
	return r
}

func relationOf(m *pglogrepl.RelationMessage) Relation {
	r := Relation{OID: m.RelationID, Schema: m.Namespace, Name: m.RelationName, Identity: change.Identity(m.ReplicaIdentity), Columns: []Column{}}
	for _, c := range m.Columns {
		r.Columns = append(r.Columns, Column{Name: c.Name, TypeOID: c.DataType, TypeModifier: c.TypeModifier, Key: c.Flags == 1})
	}
	return r
}

func columnsOf(t *pglogrepl.TupleData) []column {
	cols := []column{}
	if t == nil {
		return cols
	}
	for _, c := range t.Columns {
		cols = append(cols, column{c.DataType, string(c.Data)})
	}
	return cols
}
