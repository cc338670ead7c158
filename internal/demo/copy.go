package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

const (
	barWidth = 22
	barSteps = 1000 // of a whole bar
	// A copy of which nothing moves for so long is given up.
	stuckLimit = 2 * time.Minute
	linesEvery = 3 * time.Second // between two lines of a copy where there is no terminal
	liveEvery  = 5 * time.Second // between two tables there
	redraw     = 250 * time.Millisecond
	almost     = 0.99 // of a copy that is whole, before the replica follows
)

// errFailed means that a replication is in a state that does not pass by itself.
var errFailed = errors.New("replication failed")

// copying is the first copy of one replica, as it is shown.
type copying struct {
	node  *node
	watch *watcher

	mu       sync.Mutex
	seen     *applierv1.Replication
	heard    error
	began    time.Time
	moved    time.Time
	rows     pace
	bytes    pace
	fraction float64
}

func newCopying(n *node, w *watcher) *copying {
	return &copying{node: n, watch: w, began: time.Now(), moved: time.Now()}
}

// look takes what the watcher has heard. done tells that the replica is consistent, and follows.
func (c *copying) look(now time.Time) (done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, heard := c.watch.replication()
	c.heard = heard
	if r == nil {
		return false, c.stuck(now)
	}
	if c.seen == nil || progressed(c.seen, r) {
		c.moved = now
	}
	c.seen = r
	c.rows.add(now, r.GetSync().GetRows())
	c.bytes.add(now, r.GetSync().GetBytes())
	c.fraction = max(c.fraction, min(r.GetSync().GetFraction(), almost))
	if r.GetState() == applierv1.State_STATE_RUNNING {
		c.fraction = 1
		return true, nil
	}
	return false, c.stuck(now)
}

func (c *copying) stuck(now time.Time) error {
	if now.Sub(c.moved) < stuckLimit {
		return nil
	}
	reason := c.seen.GetReason()
	if c.heard != nil {
		reason = why(c.heard)
	}
	return fmt.Errorf("%s: the copy has not moved for %s: %s %s", c.node.name, stuckLimit, c.doing(), reason)
}

func progressed(before, after *applierv1.Replication) bool {
	a, b := before.GetSync(), after.GetSync()
	return a.GetRows() != b.GetRows() || a.GetPhase() != b.GetPhase() || a.GetDetail() != b.GetDetail() ||
		before.GetState() != after.GetState() || before.GetPosition().GetLsn() != after.GetPosition().GetLsn()
}

// doing is what goes on now, in few words.
func (c *copying) doing() string {
	if c.heard != nil {
		return why(c.heard)
	}
	r := c.seen
	switch r.GetState() {
	case applierv1.State_STATE_SYNCING:
		return strings.TrimSpace(r.GetSync().GetPhase() + " " + r.GetSync().GetDetail())
	case applierv1.State_STATE_RETRYING:
		return "retrying: " + r.GetReason()
	case applierv1.State_STATE_RUNNING:
		return "done"
	}
	return stateWord(r.GetState())
}

// text is the numbers of the copy.
func (c *copying) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	progress := c.seen.GetSync()
	if c.fraction >= 1 {
		return fmt.Sprintf("%s rows, %s in %s", count(progress.GetRows()), size(progress.GetBytes()), spell(c.moved.Sub(c.began)))
	}
	doing := cutWords(c.doing(), 40)
	if c.seen.GetState() != applierv1.State_STATE_SYNCING || c.rows.perSecond() == 0 || c.heard != nil {
		return doing
	}
	left := ""
	if c.fraction > 0.01 {
		spent := time.Since(c.began)
		left = fmt.Sprintf("  %s left", spell(time.Duration(float64(spent)*(1-c.fraction)/c.fraction)))
	}
	return fmt.Sprintf("%s rows/s  %5.1f MB/s%s  %s", count(int64(c.rows.perSecond())), c.bytes.perSecond()/1e6, left, doing)
}

// line is the copy where there is no terminal.
func (c *copying) line() string {
	return fmt.Sprintf("  %s  %3d %%  %s", c.node.name, c.percent(), c.text())
}

func (c *copying) share() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fraction
}

// percent is 100 only when the replica follows.
func (c *copying) percent() int { return int(100 * c.share()) }

func cutWords(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// watchCopies shows the first copies until all replicas follow. check is asked all the time.
func watchCopies(ctx context.Context, s *screen, copies []*copying, check func() error) error {
	shown := showCopies(s, copies)
	defer shown.end()
	for {
		if err := check(); err != nil {
			return err
		}
		ready := 0
		for _, c := range copies {
			done, err := c.look(time.Now())
			if err != nil {
				return err
			}
			if done {
				ready++
			}
		}
		shown.update(ready == len(copies))
		if ready == len(copies) {
			return nil
		}
		if !pause(ctx, redraw) {
			return ctx.Err()
		}
	}
}

// copyView shows copies as bars or as lines.
type copyView struct {
	screen   *screen
	copies   []*copying
	progress *mpb.Progress // nil without a terminal
	bars     []*mpb.Bar
	printed  time.Time
}

func showCopies(s *screen, copies []*copying) *copyView {
	v := &copyView{screen: s, copies: copies, printed: time.Now()}
	if !s.terminal {
		return v
	}
	v.progress = mpb.New(mpb.WithOutput(s.out), mpb.WithRefreshRate(redraw), mpb.WithAutoRefresh())
	for _, c := range copies {
		v.bars = append(v.bars, v.progress.AddBar(barSteps, mpb.BarWidth(barWidth),
			mpb.PrependDecorators(decor.Name("  "+c.node.name+" "), decor.Any(func(decor.Statistics) string {
				return fmt.Sprintf("%3d %%", c.percent())
			})),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + c.text() }))))
	}
	return v
}

func (v *copyView) update(last bool) {
	for i, bar := range v.bars {
		bar.SetCurrent(int64(v.copies[i].share() * barSteps))
	}
	if v.progress != nil || !last && time.Since(v.printed) < linesEvery {
		return
	}
	v.printed = time.Now()
	for _, c := range v.copies {
		v.screen.say("%s", c.line())
	}
}

// end leaves the bars as they stand.
func (v *copyView) end() {
	for _, bar := range v.bars {
		bar.Abort(false) // no effect on a whole one
	}
	if v.progress != nil {
		v.progress.Wait()
	}
}
