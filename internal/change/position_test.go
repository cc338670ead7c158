package change

import (
	"errors"
	"testing"
	"time"
)

func TestLSNText(t *testing.T) {
	for _, s := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/1"} {
		l, err := ParseLSN(s)
		if err != nil || l.String() != s {
			t.Errorf("ParseLSN(%q) = %v, %v", s, l, err)
		}
	}
	for _, s := range []string{"", "16", "/", "1/", "/1", "1/2/3", "100000000/0", "g/0", "-1/0", "0/ 1"} {
		if l, err := ParseLSN(s); !errors.Is(err, ErrInvalidLSN) {
			t.Errorf("ParseLSN(%q) = %v, %v; want ErrInvalidLSN", s, l, err)
		}
	}
}

func TestPositionText(t *testing.T) {
	want := Position{LogID: LogID{1, 2, 0xff}, LSN: 0x16B374D848}
	got, err := ParsePosition(want.String())
	if err != nil || got != want {
		t.Fatalf("ParsePosition(%q) = %v, %v", want, got, err)
	}
	for _, s := range []string{"", "@", "0/1", want.LogID.String(), want.LogID.String() + "@", "zz" + want.String()[2:], want.String() + "x"} {
		if p, err := ParsePosition(s); !errors.Is(err, ErrInvalidPosition) {
			t.Errorf("ParsePosition(%q) = %v, %v; want ErrInvalidPosition", s, p, err)
		}
	}
}

func TestTimestamp(t *testing.T) {
	want := time.Date(2026, 2, 28, 23, 59, 59, 123456000, time.UTC)
	if got := TimestampOf(want).Time(); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Timestamp(0).Time(); !got.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("zero is %v", got)
	}
}

func TestRelationHashTellsShapesApart(t *testing.T) {
	base := func() *Relation {
		return &Relation{OID: 7, Schema: "s", Name: "t", Identity: IdentityDefault, Columns: []Column{
			{Name: "a", TypeOID: 23, TypeModifier: -1, Key: true}, {Name: "b", TypeOID: 25, TypeModifier: -1},
		}}
	}
	seen := map[RelationHash]string{base().Hash(): "base"}
	for name, edit := range map[string]func(*Relation){
		"oid": func(r *Relation) { r.OID++ }, "schema": func(r *Relation) { r.Schema, r.Name = "st", "" },
		"identity": func(r *Relation) { r.Identity = IdentityFull }, "key": func(r *Relation) { r.Columns[1].Key = true },
		"column name": func(r *Relation) { r.Columns[1].Name = "c" }, "type": func(r *Relation) { r.Columns[1].TypeOID++ },
		"modifier": func(r *Relation) { r.Columns[1].TypeModifier = 14 }, "column gone": func(r *Relation) { r.Columns = r.Columns[:1] },
	} {
		r := base()
		edit(r)
		if other, ok := seen[r.Hash()]; ok {
			t.Errorf("%s hashes as %s", name, other)
		}
		seen[r.Hash()] = name
	}
	if first, again := base().Hash(), base().Hash(); first != again {
		t.Error("hash is not stable")
	}
}
