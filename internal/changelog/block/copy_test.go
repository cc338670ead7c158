package block

import (
	"fmt"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

// TestCopy copies logs record by record into logs of another builder, as a stream of a set does: they hold the same.
func TestCopy(t *testing.T) {
	for seed := range uint64(8) {
		f := mixed(seed)
		blocks := f.build(t, NewBuilder(State{LogID: testLog, Through: 1}))
		want := assemble(t, &Assembler{}, blocks)
		to := NewBuilder(State{LogID: testLog, Through: 1})
		var copied []*Block
		var rec Record
		a := &Assembler{}
		for _, b := range blocks {
			must(t, a.Push(b))
			for {
				more, err := a.Next(&rec)
				must(t, err)
				if !more {
					break
				}
				switch rec.Kind {
				case KindBegin:
					must(t, to.Begin(rec.Begin))
				case KindCommit:
					must(t, to.Commit(rec.Commit))
				case KindChange:
					must(t, to.Copy(&rec.Change, b.Relations[rec.Change.Relation]))
				case KindTruncate:
					var tables = b.Relations[:0:0]
					for _, index := range rec.Truncate.Relations {
						tables = append(tables, b.Relations[index])
					}
					must(t, to.Truncate(tables, rec.Truncate.Cascade, rec.Truncate.RestartIdentity))
				case KindMessage:
					must(t, to.Message(rec.Message))
				case KindOrigin:
					must(t, to.Origin(rec.Origin))
				}
				for to.Full() {
					copied = append(copied, to.Cut())
				}
			}
			for to.Ready() {
				copied = append(copied, to.Cut())
			}
		}
		requireSame(t, fmt.Sprintf("seed %d", seed), assemble(t, &Assembler{}, copied), want)
	}
}

func TestCopyRefuses(t *testing.T) {
	for name, c := range map[string]Change{
		"no operation":           {HasNew: true},
		"insert with an old row": {Operation: Insert, HasNew: true, HasOld: true},
		"insert without a row":   {Operation: Insert},
		"delete with a new row":  {Operation: Delete, HasOld: true, HasNew: true},
		"delete without a row":   {Operation: Delete},
		"update with a key only": {Operation: Update, HasNew: true, OldIsKey: true},
	} {
		b := NewBuilder(State{LogID: testLog, Through: 1})
		must(t, b.Begin(Begin{CommitLSN: 5, XID: 1}))
		if err := b.Copy(&c, change.RelationHash{1}); err == nil {
			t.Errorf("copied an operation: %s", name)
		}
	}
}

func TestFill(t *testing.T) {
	row := func(values ...any) Row {
		size, err := tupleSize(tuple(values...))
		must(t, err)
		r, err := parseRow(appendTuple(make([]byte, 0, size), tuple(values...)))
		must(t, err)
		return r
	}
	u := byte('u')
	for _, c := range []struct {
		row, from Row
		want      string
		whole     bool
	}{
		{row("a", nil), Row{}, `("a" n)`, true},
		{row("a", u, u, "d"), row("x", "b", nil, "y"), `("a" "b" n "d")`, true},
		{row("a", u), row("x", u), `("a" u)`, false},
		{row("a", u), Row{}, `("a" u)`, false},
		{row(), Row{}, `()`, true},
	} {
		got, whole := c.row.Fill(c.from)
		if renderRow(got) != c.want || whole != c.whole {
			t.Errorf("%s filled from %s: %s, %v; want %s, %v", renderRow(c.row), renderRow(c.from), renderRow(got), whole, c.want, c.whole)
		}
	}
}
