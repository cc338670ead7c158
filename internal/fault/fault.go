// Package fault lets tests break a process at a named point: between any two durable steps the process can be killed,
// stalled, or made to see an error. A point that is not armed costs one atomic load.
//
// Points are armed through the environment, so that the real binary is what is tested:
//
//	SYNCLINE_FAULT="changelog/published:3"          SIGKILL to the own process at the third passage
//	SYNCLINE_FAULT="a/b:1:stall,c/d:2:error"        several points, with an action
//	SYNCLINE_FAULT_LOG=/path/of/file                a line "name" is appended for each point that acted
package fault

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// The variables that arm points and say where to record that they acted.
const (
	Variable    = "SYNCLINE_FAULT"
	LogVariable = "SYNCLINE_FAULT_LOG"
)

// ErrInjected is what Error returns at a point armed with the action error.
var ErrInjected = errors.New("injected fault")

type action int

const (
	kill action = iota
	stall
	fail
)

var actions = map[string]action{"kill": kill, "stall": stall, "error": fail}

type point struct {
	passages int // still to come before it acts
	action   action
}

var (
	armed  atomic.Bool
	mu     sync.Mutex
	points map[string]*point
)

func init() {
	if text := os.Getenv(Variable); text != "" {
		if err := Arm(text); err != nil {
			panic(err) // only a test sets the variable, and it must notice a misspelt one
		}
	}
}

// Arm arms points as the variable does; an empty text disarms all.
func Arm(text string) error {
	parsed := map[string]*point{}
	for one := range strings.SplitSeq(text, ",") {
		if one == "" {
			continue
		}
		parts := strings.Split(one, ":")
		p := &point{passages: 1}
		var err error
		if len(parts) > 1 {
			p.passages, err = strconv.Atoi(parts[1])
		}
		ok := true
		if len(parts) > 2 {
			p.action, ok = actions[parts[2]]
		}
		if err != nil || !ok || p.passages < 1 || len(parts) > 3 || parts[0] == "" {
			return fmt.Errorf("arm faults: %q is not NAME[:COUNT[:kill|stall|error]]", one)
		}
		parsed[parts[0]] = p
	}
	mu.Lock()
	defer mu.Unlock()
	points = parsed
	armed.Store(len(parsed) > 0)
	return nil
}

// Point is a place where the process may be killed or stalled.
func Point(name string) {
	if armed.Load() {
		_ = act(name)
	}
}

// Error is a place where the process may be killed or stalled, or an operation may fail with ErrInjected.
func Error(name string) error {
	if !armed.Load() {
		return nil
	}
	return act(name)
}

func act(name string) error {
	mu.Lock()
	p := points[name]
	if p == nil || p.passages == 0 {
		mu.Unlock()
		return nil
	}
	p.passages--
	due := p.passages == 0
	mu.Unlock()
	if !due {
		return nil
	}
	record(name)
	switch p.action {
	case stall:
		select {}
	case fail:
		return fmt.Errorf("%w at %s", ErrInjected, name)
	default:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

// record says that a point acted, in a file that outlives the process.
func record(name string) {
	path := os.Getenv(LogVariable)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintln(f, name)
	_ = f.Close()
}
