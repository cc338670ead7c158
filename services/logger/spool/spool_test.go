package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

// streamed is a message as the server sends it inside a piece.
func streamed(letter byte, xid uint32, rest string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{letter}, xid), rest...)
}

func newSpool(t *testing.T) *Spool {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "open"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func replay(t *testing.T, s *Spool, xid uint32, take func(message string, at change.LSN)) {
	t.Helper()
	transaction, err := s.Commit(xid)
	must(t, err)
	defer transaction.Close()
	empty := true
	must(t, transaction.Replay(func(message []byte, at change.LSN) error {
		empty = empty && (message[0] == 'R' || message[0] == 'O')
		take(string(message), at)
		return nil
	}))
	if transaction.Empty() != empty {
		t.Errorf("Empty says %v", transaction.Empty())
	}
}

func requireList(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%d messages, want %d; they differ from number %d on:\n%.200q\n%.200q", len(got), len(want), i, got[min(i, len(got)):], want[min(i, len(want)):])
		}
	}
}

// TestPieces writes transactions in pieces, several at a time, with values that fit into memory and such that do not.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	s := newSpool(t)
	want := map[uint32][]string{}
	ended := 0
	for n := range 2000 {
		xid := uint32(3 + r.IntN(5))
		_, begun := want[xid]
		must(t, s.Start(xid, !begun))
		for range r.IntN(50) {
			n++
			message := fmt.Sprint(n)
			if r.IntN(1000) == 0 {
				message += strings.Repeat("x", r.IntN(3*bufferBytes))
			}
			must(t, s.Add(streamed('I', xid+100, message), change.LSN(n)))
			want[xid] = append(want[xid], fmt.Sprintf("%d I%s", n, message))
		}
		must(t, s.Stop())
		if !begun && want[xid] == nil {
			want[xid] = []string{}
		}
		switch r.IntN(20) {
		case 0:
			must(t, s.Abort(xid, xid))
			delete(want, xid)
		case 1:
			var got []string
			replay(t, s, xid, func(message string, at change.LSN) { got = append(got, fmt.Sprintf("%d %s", at, message)) })
			requireList(t, got, want[xid])
			delete(want, xid)
			ended++
		}
	}
	if ended < 50 {
		t.Errorf("%d transactions have ended", ended)
	}
	s.Close()
	if s.Bytes() != 0 {
		t.Errorf("%d bytes are left", s.Bytes())
	}
}

func TestOrigin(t *testing.T) {
	s := newSpool(t)
	must(t, s.Start(9, true))
	must(t, s.Add([]byte("O\x00\x00\x00\x00\x00\x00\x00\x00elsewhere\x00"), 1))
	must(t, s.Add(streamed('I', 10, "a"), 2))
	must(t, s.Stop())
	var got []string
	replay(t, s, 9, func(message string, at change.LSN) { got = append(got, fmt.Sprintf("%d %s", at, message)) })
	requireList(t, got, []string{"1 O\x00\x00\x00\x00\x00\x00\x00\x00elsewhere\x00", "2 Ia"})
}

// TestWhole has what must not be taken in pieces.
func TestWhole(t *testing.T) {
	table := func(oid byte) []byte { return streamed('R', 1, string([]byte{0, 0, 0, oid})+"…") }
	s := newSpool(t)
	must(t, s.Start(1, true))
	must(t, s.Add(table(1), 1))
	must(t, s.Add(table(2), 1))
	must(t, s.Stop())
	must(t, s.Start(2, true))
	must(t, s.Add(table(1), 1)) // in another transaction
	must(t, s.Stop())
	must(t, s.Abort(7, 8)) // of which nothing was sent
	must(t, s.Abort(2, 5)) // spoils it, and does not matter then
	must(t, s.Abort(2, 2))
	must(t, s.Abort(1, 5))
	if s.Bytes() != 0 {
		t.Errorf("%d bytes are kept of a transaction that is spoiled", s.Bytes())
	}
	must(t, s.Start(1, false))
	must(t, s.Add(table(3), 1))
	must(t, s.Stop())
	if _, err := s.Commit(1); !errors.Is(err, ErrWhole) {
		t.Errorf("a part was rolled back: %v", err)
	}
	must(t, s.Start(3, true))
	must(t, s.Add(table(2), 1))
	must(t, s.Add(streamed('I', 3, "…"), 1))
	must(t, s.Add(table(2), 1))
	must(t, s.Stop())
	if _, err := s.Commit(3); !errors.Is(err, ErrWhole) || s.Bytes() != 0 {
		t.Errorf("a table was described twice: %v, %d bytes are kept", err, s.Bytes())
	}
}

func TestWrongOrder(t *testing.T) {
	piece := func(s *Spool) { must(t, s.Start(1, true)) }
	whole := func(s *Spool) { piece(s); must(t, s.Stop()) }
	for name, wrong := range map[string]struct {
		before func(*Spool)
		what   func(*Spool) error
	}{
		"a second first piece":           {whole, func(s *Spool) error { return s.Start(1, true) }},
		"a piece without the first":      {func(*Spool) {}, func(s *Spool) error { return s.Start(1, false) }},
		"a piece in a piece":             {piece, func(s *Spool) error { return s.Start(2, true) }},
		"a message outside of pieces":    {whole, func(s *Spool) error { return s.Add(streamed('I', 1, ""), 1) }},
		"the end of no piece":            {whole, func(s *Spool) error { return s.Stop() }},
		"a commit in a piece":            {piece, func(s *Spool) error { _, err := s.Commit(1); return err }},
		"a commit of what was not begun": {whole, func(s *Spool) error { _, err := s.Commit(2); return err }},
		"a rollback in a piece":          {piece, func(s *Spool) error { return s.Abort(1, 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpool(t)
			wrong.before(s)
			if err := wrong.what(s); !errors.Is(err, ErrOrder) {
				t.Errorf("got %v, want ErrOrder", err)
			}
		})
	}
	s := newSpool(t)
	piece(s)
	if err := s.Add([]byte("I\x00"), 1); !errors.Is(err, pgoutput.ErrMalformed) {
		t.Errorf("got %v, want ErrMalformed", err)
	}
	must(t, s.Stop())
	must(t, s.Abort(7, 7)) // a transaction of which nothing was sent
}

func TestNothingIsLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, prefix+"1"), []byte("of a crash"), 0o600))
	s, err := New(dir)
	must(t, err)
	must(t, s.Start(1, true))
	must(t, s.Add(streamed('I', 1, strings.Repeat("x", 2*bufferBytes)), 1))
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 0 {
		t.Errorf("%d files have names", len(entries))
	}
	if s.Bytes() < 2*bufferBytes {
		t.Errorf("%d bytes are counted", s.Bytes())
	}
	s.Close()
	if s.Bytes() != 0 {
		t.Errorf("%d bytes are counted after Close", s.Bytes())
	}
}
