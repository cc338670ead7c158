package logger

import (
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

func TestDescribeRow(t *testing.T) {
	f := &feed{relations: map[uint32]relation{7: {shape: &change.Relation{
		OID: 7, Schema: "public", Name: "T", Identity: change.IdentityDefault,
		Columns: []change.Column{{Name: "big"}, {Name: "id", Key: true}, {Name: "code", Key: true}, {Name: "more"}},
	}}}}
	value := func(size int, text string) []byte {
		b := binary.BigEndian.AppendUint32([]byte{'t'}, uint32(size))
		return append(append(b, text...), make([]byte, size-len(text))...)
	}
	row := func(kind byte, oid uint32, letter byte, values ...[]byte) string {
		b := binary.BigEndian.AppendUint32([]byte{kind}, oid)
		b = append(b, letter, 0, byte(len(values)))
		for _, v := range values {
			b = append(b, v...)
		}
		return string(b)
	}
	for _, c := range []struct{ name, message, want string }{
		{"insert", row('I', 7, 'N', value(1<<20, "x"), value(2, "42"), value(300, strings.Repeat("k", 300)), []byte{'n'}),
			`insert into table public."T", row id=42 code=` + strings.Repeat("k", 100) + "…,"},
		{"update", row('U', 7, 'N', []byte{'u'}, value(1, "1"), []byte{'n'}, value(1<<20, "")), `update of table public."T", row id=1 code=null,`},
		{"delete", row('D', 7, 'O', []byte{'n'}, value(1, "1"), value(2, "ü"), []byte{'n'}), `delete from table public."T", row id=1 code=ü,`},
		{"message", "M\x01whatever", `a message of kind 'M'`},
		{"unknown table", row('I', 8, 'N'), `a row that cannot be named (change of a table that the server has not described)`},
		{"cut", row('I', 7, 'N', value(5, "x"))[:12], `a row that cannot be named (read row: unexpected EOF)`},
		{"empty", "", `a row that cannot be named (read row: EOF)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := f.describe(strings.NewReader(c.message)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	// What follows the key need not be there: it is not read.
	r := io.MultiReader(strings.NewReader(row('I', 7, 'N', value(1, "x"), value(1, "1"), value(1, "2"), value(1<<20, ""))))
	if got, oid := f.describe(r); oid != 7 || !strings.Contains(got, "id=1 code=2") {
		t.Errorf("got %s, %d", got, oid)
	}
}

func TestLimitWarnings(t *testing.T) {
	left := int64(5)
	if got := limitWarnings("s", "reserved", nil, "-1", "0", "UTF8"); got != nil {
		t.Errorf("without limits: %v", got)
	}
	got := limitWarnings("s", "unreserved", &left, "1GB", "1d", "SQL_ASCII")
	for n, want := range []string{"max_slot_wal_keep_size is 1GB", "idle_replication_slot_timeout is 1d", "lost with the next checkpoint", "SQL_ASCII"} {
		if len(got) != 4 || !strings.Contains(got[n], want) {
			t.Errorf("%q is missing in %v", want, got)
		}
	}
}

func TestParseSlot(t *testing.T) {
	s, err := parseSlot([]byte(`{"plugin": "pgoutput", "slot_type": "logical", "database": "d", "active_pid": null, "active": false,
		"confirmed_flush_lsn": "16/B374D848", "wal_status": "reserved", "invalidation_reason": null, "new_column": 5}`))
	if err != nil || !s.exists || s.confirmed != 0x16B374D848 || s.lost || s.pid != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, raw := range []string{`{"wal_status": "lost"}`, `{"wal_status": "reserved", "invalidation_reason": "idle_timeout"}`} {
		if s, err := parseSlot([]byte(raw)); err != nil || !s.lost || s.cause == "" || s.confirmed != 0 {
			t.Errorf("%s: got %+v, %v", raw, s, err)
		}
	}
	for _, raw := range []string{`[]`, `{"confirmed_flush_lsn": "x"}`} {
		if s, err := parseSlot([]byte(raw)); err == nil {
			t.Errorf("%s: got %+v", raw, s)
		}
	}
}
