package demo

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
)

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(-1234567): "-1,234,567",
		size(999): "999 B", size(1500): "1.5 kB", size(444_000_000): "444.0 MB", size(2_000_000_000_000): "2.0 TB",
		spell(1400 * time.Millisecond): "1 s", spell(62 * time.Second): "1m2s",
		stateWord(applierv1.State_STATE_CATCHING_UP): "catching up",
		plural(1, "replica"):                         "1 replica", plural(2, "replica"): "2 replicas",
		cutWords("Überstunden", 5): "Über…",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTableLines(t *testing.T) {
	r := &applierv1.Replication{
		State: applierv1.State_STATE_RUNNING, Position: &changev1.Position{Lsn: 0x1_0000_00AB}, LagBytes: 1234,
		LagSeconds: proto.Float64(0.26), ChangesPerSecond: 1520.7, Transactions: 45678,
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "  replica 1 running      1/AB            1.2 kB     0.3     1,520        45,678"},
		{errors.New("away"), "  replica 1 away         1/AB"},
	} {
		if got := strings.TrimRight(replicaLine("replica 1", r, c.err), " "); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
}

// TestCopyLines shows a copy from its start to its end, and one that gets stuck.
func TestCopyLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{}
		c := newCopying(&node{name: "replica 1"}, w)
		tell := func(state applierv1.State, rows, bytes int64, fraction float64, phase, detail string) string {
			w.set(&applierv1.Replication{State: state, Sync: &applierv1.SyncProgress{
				Rows: rows, Bytes: bytes, Fraction: fraction, Phase: phase, Detail: detail,
			}}, nil)
			if _, err := c.look(time.Now()); err != nil {
				t.Fatal(err)
			}
			line := c.line()
			<-time.After(time.Second) // the bubble's own clock
			return line
		}
		syncing := applierv1.State_STATE_SYNCING
		got := strings.Join([]string{
			tell(syncing, 0, 0, 0, "waiting for a snapshot", ""),
			tell(syncing, 100_000, 20_000_000, 0.25, "copying", "shop.orders"),
			tell(syncing, 300_000, 60_000_000, 0.75, "copying", "shop.customers"),
			tell(syncing, 400_000, 80_000_000, 0.99, "building indexes", "orders_of_customer_which_is_long"),
			tell(applierv1.State_STATE_CATCHING_UP, 400_000, 80_000_000, 1, "", ""),
			tell(applierv1.State_STATE_RUNNING, 400_000, 80_000_000, 1, "", ""),
		}, "\n")
		want := `  replica 1    0 %  waiting for a snapshot
  replica 1   25 %  100,000 rows/s   20.0 MB/s  3 s left  copying shop.orders
  replica 1   75 %  150,000 rows/s   30.0 MB/s  1 s left  copying shop.customers
  replica 1   99 %  133,333 rows/s   26.7 MB/s  0 s left  building indexes orders_of_customer_whi…
  replica 1   99 %  catching up
  replica 1  100 %  400,000 rows, 80.0 MB in 5 s`
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}

		stuck := newCopying(&node{name: "replica 2"}, w)
		w.set(&applierv1.Replication{State: applierv1.State_STATE_RETRYING, Reason: "connection refused"}, nil)
		if _, err := stuck.look(time.Now()); err != nil {
			t.Fatal(err)
		}
		<-time.After(stuckLimit)
		if _, err := stuck.look(time.Now()); err == nil || !strings.Contains(err.Error(), "replica 2: the copy has not moved for 2m0s: retrying: connection refused") {
			t.Errorf("a copy that does not move: %v", err)
		}
	})
}

// TestScreen says a line while a block is shown: the block moves below it.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, terminal: true}
	s.say("one")
	s.show("a", "b")
	s.say("two")
	s.show("c")
	s.settle()
	s.say("three")
	want := "one\na\nb\n\x1b[2A\r\x1b[Jtwo\na\nb\n\x1b[2A\r\x1b[Jc\nthree\n"
	if out.String() != want {
		t.Errorf("terminal: got %q, want %q", out.String(), want)
	}

	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &screen{out: &out, every: 5 * time.Second}
		s.show("a")
		s.show("b")
		s.say("one")
		<-time.After(5 * time.Second) // the bubble's own clock
		s.show("c")
		if want := "a\none\nc\n"; out.String() != want {
			t.Errorf("lines: got %q, want %q", out.String(), want)
		}
	})
}

func TestPace(t *testing.T) {
	var p pace
	at := time.Unix(1000, 0)
	for i := range 100 {
		p.add(at.Add(time.Duration(i)*time.Second), int64(i*10))
	}
	if got := p.perSecond(); got != 10 {
		t.Errorf("%g a second, want 10", got)
	}
	if len(p.samples) > 6 {
		t.Errorf("%d samples are kept", len(p.samples))
	}
	p.add(at.Add(101*time.Second), 3)
	if got := p.perSecond(); got != 0 {
		t.Errorf("%g a second after the counter began again", got)
	}
}

func TestOptions(t *testing.T) {
	if err := DefaultOptions().check(); err != nil {
		t.Error(err)
	}
	for name, edit := range map[string]func(*Options){
		"no replicas": func(o *Options) { o.Replicas = 0 }, "many replicas": func(o *Options) { o.Replicas = MaxReplicas + 1 },
		"no scale": func(o *Options) { o.Scale = 0 }, "no duration": func(o *Options) { o.Duration = 0 },
	} {
		o := DefaultOptions()
		edit(&o)
		if err := o.check(); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
