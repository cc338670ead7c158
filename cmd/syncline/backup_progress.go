package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/seed0419d559/syncline/internal/backup"
)

// progressLook is how often it is looked whether there is a line to print.
const progressLook = 200 * time.Millisecond

// showProgress prints a line for each phase, and for each lineInterval of it, until the function that it returns is called.
func showProgress(out io.Writer, progress *backup.Progress) (stop func()) {
	done := make(chan struct{})
	var printing sync.WaitGroup
	printing.Go(func() {
		tick := time.NewTicker(progressLook)
		defer tick.Stop()
		view := progressLines{out: out, progress: progress}
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				view.look(now)
			}
		}
	})
	return func() {
		close(done)
		printing.Wait()
	}
}

// progressLines prints what is new at once, and numbers now and then.
type progressLines struct {
	out      io.Writer
	progress *backup.Progress
	phase    string
	last     time.Time
	speed    speed
}

func (v *progressLines) look(now time.Time) {
	phase := v.progress.Phase()
	rows, bytes, total := v.progress.Rows.Load(), v.progress.Bytes.Load(), v.progress.Total.Load()
	if phase != v.phase {
		v.speed = speed{}
	}
	v.speed.add(now, rows, bytes, 0)
	if phase == v.phase && now.Sub(v.last) < lineInterval {
		return
	}
	v.phase, v.last = phase, now
	line := phase
	if bytes > 0 {
		if rows > 0 {
			line += fmt.Sprintf("  %s rows", count(rows))
		}
		line += "  " + size(bytes)
		if total > 0 {
			line += " of about " + size(max(bytes, total))
		}
		if v.speed.bytes > 0 {
			line += fmt.Sprintf("  %s/s", size(int64(v.speed.bytes)))
		}
	}
	fmt.Fprintln(v.out, line)
}
