package apply

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

var errChoice = errors.New("nothing was chosen")

// feed gives events one after the other until the engine is gone.
func feed(ctx context.Context, stream chan<- Event, events []Event) {
	for _, e := range events {
		select {
		case stream <- e:
		case <-ctx.Done():
			return
		}
	}
}

// TestHoldStandsExactly has an engine stand still at the end of each transaction, and just before it, in every grouping: the
// target then holds the transactions up to there and no other, and all of them at the end.
func TestHoldStandsExactly(t *testing.T) {
	const transactions = 14
	for name, edit := range map[string]func(*Options){"small groups": crashOptions, "large groups": func(*Options) {}} {
		t.Run(name, func(t *testing.T) {
			l, ends := crashLog(t, transactions)
			last := l.mark()
			l.mark()
			at := append([]change.LSN{l.start, l.start + 1, last - 1, last}, ends...)
			for _, end := range ends {
				at = append(at, end-0x40) // where its commit record begins, and the one before it ends
			}
			for _, position := range at {
				g := newTestTarget(t, l, crashTables)
				want := 0
				for _, end := range ends {
					if end <= position {
						want++
					}
				}
				stream, holds := make(chan Event, eventsWaiting), NewHolds()
				ctx, cancel := context.WithCancel(t.Context())
				held := make(chan error, 1)
				looking := pgtest.Connect(t, g.url)
				go func() {
					held <- holds.At(ctx, func(standing change.Position) (change.Position, error) {
						go feed(ctx, stream, l.after(l.start))
						if standing != (change.Position{LogID: l.id, LSN: l.start}) {
							return standing, fmt.Errorf("it stands at %s", standing)
						}
						return change.Position{LogID: l.id, LSN: position}, nil
					}, func() error {
						var rows int
						err := looking.QueryRow(ctx, "SELECT count(*) FROM ledger").Scan(&rows)
						if err == nil && rows != want {
							err = fmt.Errorf("at %s there are %d transactions, want %d", position, rows, want)
						}
						if err != nil {
							return err
						}
						return g.storedAt(ctx, looking, position)
					})
				}()
				often := func(o *Options) { o.StoreInterval = storeOften }
				g.apply(l, withOptions(edit), withOptions(often), func(r *testRun) { r.Holds, r.stream = holds, stream })
				if err := <-held; err != nil {
					t.Error(err)
				}
				cancel()
				if rows := len(g.table("ledger")); rows != transactions {
					t.Errorf("%d transactions at the end", rows)
				}
			}
		})
	}
}

// storedAt returns once the stored position is exactly this one, which it gets to by itself, and fails when it lies beyond.
func (g *testTarget) storedAt(ctx context.Context, conn *pgx.Conn, want change.LSN) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var text string
		if err := conn.QueryRow(ctx, "SELECT lsn::text FROM syncline.positions").Scan(&text); err != nil {
			return fmt.Errorf("the position has not come to %s: %w", want, err)
		}
		stored, err := change.ParseLSN(text)
		if err != nil || stored == want {
			return err
		}
		if stored > want {
			return fmt.Errorf("at %s the stored position %s lies beyond", want, stored)
		}
	}
}

const (
	eventsWaiting = 16
	storeOften    = 2 * time.Millisecond
)

// TestHoldIsGivenUp: whatever becomes of a hold, the engine goes on; and whatever becomes of the engine, the hold ends.
func TestHoldIsGivenUp(t *testing.T) {
	for name, test := range map[string]struct {
		choose func(l *testLog, cancel context.CancelFunc) (change.Position, error)
		want   error
	}{
		"no choice": {func(*testLog, context.CancelFunc) (change.Position, error) { return change.Position{}, errChoice }, errChoice},
		"passed": {func(l *testLog, _ context.CancelFunc) (change.Position, error) {
			return change.Position{LogID: l.id, LSN: l.start - 1}, nil
		}, ErrPassed},
		"another log": {func(l *testLog, _ context.CancelFunc) (change.Position, error) {
			return change.Position{LogID: change.LogID{7}, LSN: l.lsn}, nil
		}, ErrPassed},
		"cancelled before it goes on": {func(l *testLog, cancel context.CancelFunc) (change.Position, error) {
			cancel()
			return change.Position{LogID: l.id, LSN: l.lsn}, nil
		}, context.Canceled},
		"never reached": {func(l *testLog, _ context.CancelFunc) (change.Position, error) {
			return change.Position{LogID: l.id, LSN: l.lsn + 1}, nil
		}, ErrNotApplying},
	} {
		t.Run(name, func(t *testing.T) {
			l, ends := crashLog(t, 4)
			g := newTestTarget(t, l, crashTables)
			stream, holds := make(chan Event), NewHolds()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			held := make(chan error, 1)
			go func() {
				held <- holds.At(ctx, func(change.Position) (change.Position, error) {
					go feed(t.Context(), stream, l.after(l.start))
					return test.choose(l, cancel)
				}, func() error {
					t.Error("it was reached")
					return nil
				})
			}()
			g.apply(l, func(r *testRun) { r.Holds, r.stream = holds, stream })
			err := <-held
			// One that is cancelled may find the engine gone at the same time.
			late := errors.Is(test.want, context.Canceled) && errors.Is(err, ErrNotApplying)
			if !errors.Is(err, test.want) && !late {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if got := g.requireWhole(ends); got != len(ends) {
				t.Errorf("%d transactions at the end", got)
			}
			if err := holds.At(t.Context(), nil, nil); !errors.Is(err, ErrNotApplying) {
				t.Errorf("without an engine: %v", err)
			}
		})
	}
}

// TestHoldWaitsForTheTransaction asks for a hold within a transaction of several blocks.
func TestHoldWaitsForTheTransaction(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, crashTables)
	ledger := testRelation("ledger", byKey, "n*", "what")
	end := l.tx(func() {
		for n := range 20 {
			l.insert(ledger, n, "x")
			l.padding(200 << 10)
		}
	})
	next := l.tx(func() { l.insert(ledger, 100, "y") })
	l.flush()
	events := l.after(l.start)
	stream, holds := make(chan Event), NewHolds()
	held := make(chan error, 1)
	go func() {
		feed(t.Context(), stream, events[:len(events)/2])
		go feed(t.Context(), stream, events[len(events)/2:])
		held <- holds.At(t.Context(), func(standing change.Position) (change.Position, error) {
			if standing.LSN < end {
				return standing, fmt.Errorf("it stands at %s, in the middle of a transaction", standing)
			}
			return change.Position{LogID: l.id, LSN: next}, nil
		}, func() error { return nil })
	}()
	g.apply(l, func(r *testRun) { r.Holds, r.stream = holds, stream; r.until = next + 1 }, func(r *testRun) {
		told := r.Applied
		r.Applied = func(p Progress) error {
			if p.Position.LSN >= next {
				r.until = next
			}
			return told(p)
		}
	})
	if err := <-held; err != nil && !errors.Is(err, ErrNotApplying) {
		t.Error(err)
	}
	if rows := len(g.table("ledger")); rows != 21 {
		t.Errorf("%d rows", rows)
	}
}
