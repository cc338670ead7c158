package applier

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// fakeClock is a connection to a source whose clock is apart by so much, after a way that takes so long; nil says nothing of the time.
type fakeClock struct {
	grpc.ClientConnInterface
	apart *time.Duration
	takes []time.Duration // there and back, of one call after the other
	asked int
}

func (f *fakeClock) Invoke(_ context.Context, method string, _, answer any, _ ...grpc.CallOption) error {
	if method != serverv1.ServerService_GetServer_FullMethodName {
		return errors.New(method)
	}
	half := f.takes[f.asked%len(f.takes)] / 2
	f.asked++
	time.Sleep(half)
	out := &serverv1.GetServerResponse{Server: &serverv1.Server{}}
	if f.apart != nil {
		out.Server.Time = timestamppb.New(time.Now().Add(*f.apart))
	}
	time.Sleep(half)
	proto.Merge(answer.(proto.Message), out)
	return nil
}

// onlyFinding is what there is but what is ok, as "verdict topic: text -> mend".
func onlyFinding(t *testing.T, h *handshake) string {
	t.Helper()
	var found []string
	for _, f := range h.out.GetFindings() {
		if f.GetVerdict() != applierv1.Verdict_VERDICT_OK {
			found = append(found, strings.ToLower(strings.TrimPrefix(f.GetVerdict().String(), "VERDICT_"))+" "+f.GetTopic()+": "+f.GetText()+" -> "+f.GetMend())
		}
	}
	return strings.Join(found, "\n")
}

// TestClockNote measures clocks that are apart, and says so only where it is sure: neither a slow way nor a little is told.
func TestClockNote(t *testing.T) {
	const fast, slow = 2 * time.Millisecond, 200 * time.Millisecond
	seconds := func(s float64) *time.Duration { d := time.Duration(s * float64(time.Second)); return &d }
	for name, test := range map[string]struct {
		apart *time.Duration
		takes []time.Duration
		want  string
	}{
		"none":                 {seconds(0), []time.Duration{fast}, ""},
		"a little":             {seconds(1.5), []time.Duration{fast}, ""},
		"ahead":                {seconds(30), []time.Duration{fast}, "note clock: the source's clock is 30.0 s ahead of the replica's"},
		"behind":               {seconds(-30), []time.Duration{fast}, "note clock: the source's clock is 30.0 s behind the replica's"},
		"by the fastest of it": {seconds(2.08), []time.Duration{slow, fast, slow}, "note clock: the source's clock is 2.1 s ahead of the replica's"},
		"too slow to be sure":  {seconds(2.08), []time.Duration{slow}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // in which time passes as it is said
				h, clock := &handshake{&applierv1.Handshake{}}, &fakeClock{apart: test.apart, takes: test.takes}
				if err := h.clock(t.Context(), &source{logger: clock}); err != nil {
					t.Fatal(err)
				}
				got := onlyFinding(t, h)
				if (test.want == "") != (got == "") || !strings.HasPrefix(got, test.want) || got != "" && !strings.HasSuffix(got, "-> run a time service on both") {
					t.Errorf("found %q, expected %q", got, test.want)
				}
				if c := h.out.GetClock(); clock.asked != clockRounds || c == nil || c.GetOffsetSeconds()+c.GetBoundSeconds() < test.apart.Seconds() || c.GetOffsetSeconds()-c.GetBoundSeconds() > test.apart.Seconds() {
					t.Errorf("measured %v", c)
				}
			})
		})
	}
	h := &handshake{&applierv1.Handshake{}}
	if err := h.clock(t.Context(), &source{logger: &fakeClock{takes: []time.Duration{fast}}}); err != nil || len(h.out.GetFindings()) > 0 || h.out.GetClock() != nil {
		t.Errorf("of a source that tells no time: %v, %v", h.out, err)
	}
}

// TestCollationNotes tells of databases that sort otherwise, and of indexes that a library has left behind, each on its side.
func TestCollationNotes(t *testing.T) {
	for name, test := range map[string]struct {
		source func(*inventoryv1.DatabaseSettings)
		target func(*postgres.Settings)
		want   string
	}{
		"the same": {},
		"another locale": {func(s *inventoryv1.DatabaseSettings) { s.Collate, s.Ctype = "de_DE.utf8", "de_DE.utf8" }, nil,
			"note database: the source sorts text by libc de_DE.utf8 2.36 and the replica by libc C.utf8 2.36: queries may give another order there; rows are the same -> "},
		"other letters only": {func(s *inventoryv1.DatabaseSettings) { s.Ctype = "de_DE.utf8" }, nil,
			"note database: the source sorts text by libc C.utf8 (letters de_DE.utf8) 2.36 and the replica by libc C.utf8 2.36: queries may give another order there; rows are the same -> "},
		"another provider": {nil, func(s *postgres.Settings) { s.Provider, s.Locale = "icu", "de" },
			"note database: the source sorts text by libc C.utf8 2.36 and the replica by icu de 2.36: queries may give another order there; rows are the same -> "},
		"another library": {nil, func(s *postgres.Settings) { s.CollationVersion, s.CollationActual = "2.41", "2.41" },
			"note database: the source sorts text by libc C.utf8 2.36 and the replica by libc C.utf8 2.41: queries may give another order there; rows are the same -> "},
		"old indexes here": {nil, func(s *postgres.Settings) { s.CollationVersion = "2.31" },
			"note database: the replica's indexes were built with version 2.31 of its collation, and the library has 2.36: they may be wrong -> REINDEX DATABASE; ALTER DATABASE … REFRESH COLLATION VERSION on the replica"},
		"old indexes there": {func(s *inventoryv1.DatabaseSettings) { s.CollationVersion = "2.31" }, nil,
			"note database: the source's indexes were built with version 2.31 of its collation, and the library has 2.36: they may be wrong -> REINDEX DATABASE; ALTER DATABASE … REFRESH COLLATION VERSION on the source"},
		"another encoding": {nil, func(s *postgres.Settings) { s.Encoding = "LATIN1" },
			"note database: the source has encoding UTF8 and the replica LATIN1: a character that the replica's does not have stops the replication, and the row is named -> "},
	} {
		t.Run(name, func(t *testing.T) {
			there := &inventoryv1.DatabaseSettings{Encoding: "UTF8", CollationProvider: "libc", Collate: "C.utf8", Ctype: "C.utf8", CollationVersion: "2.36", ActualCollationVersion: "2.36"}
			p := &plan{settings: postgres.Settings{Encoding: "UTF8", Provider: "libc", Collate: "C.utf8", CType: "C.utf8", CollationVersion: "2.36", CollationActual: "2.36"}}
			if test.source != nil {
				test.source(there)
			}
			if test.target != nil {
				test.target(&p.settings)
			}
			h := &handshake{&applierv1.Handshake{}}
			h.databases(&source{told: surroundings{settings: there}}, p)
			if got := onlyFinding(t, h); got != test.want {
				t.Errorf("found %q, expected %q", got, test.want)
			}
		})
	}
	h := &handshake{&applierv1.Handshake{}}
	if h.databases(&source{}, &plan{}); !strings.HasPrefix(onlyFinding(t, h), "note database: the source's version of Syncline does not tell") {
		t.Errorf("of an older source: %q", onlyFinding(t, h))
	}
}
