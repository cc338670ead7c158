package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// screen is where the user looks: lines that stay and, below them, a block that is drawn anew. Where there is no
// terminal the block is printed now and then, so that a log stays readable.
type screen struct {
	out      io.Writer
	terminal bool
	every    time.Duration // between two blocks where there is no terminal

	mu      sync.Mutex
	block   []string
	drawn   int       // lines of the block on the terminal
	printed time.Time // when the block was last printed, without a terminal
}

const (
	clearBelow = "\x1b[J"
	lineUp     = "\x1b[%dA"
)

// say prints lines that stay.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintf(s.out, format+"\n", args...)
	s.draw()
}

// show replaces the block.
func (s *screen) show(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		s.erase()
		s.block = lines
		s.draw()
		return
	}
	if time.Since(s.printed) < s.every {
		return
	}
	s.printed = time.Now()
	fmt.Fprintln(s.out, strings.Join(lines, "\n"))
}

// settle lets the block stand as it is, as if it had been said, and begins a new one.
func (s *screen) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.block, s.drawn, s.printed = nil, 0, time.Time{}
}

// clear takes the block away.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.block, s.printed = nil, time.Time{}
}

// erase needs mu.
func (s *screen) erase() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, lineUp+"\r"+clearBelow, s.drawn)
		s.drawn = 0
	}
}

// draw needs mu.
func (s *screen) draw() {
	if !s.terminal || len(s.block) == 0 {
		return
	}
	fmt.Fprintln(s.out, strings.Join(s.block, "\n"))
	s.drawn = len(s.block)
}
