package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is one running postmaster.
type child struct {
	pid  int
	done chan struct{} // closed once the postmaster is reaped
	err  error         // how it ended; to be read after done
}

// run starts cmd and keeps the starting thread alive until the child is gone: the parent death signal is sent when the
// starting *thread* ends, and the Go runtime ends threads as it likes unless a goroutine holds them.
func run(cmd *exec.Cmd) (*child, error) {
	c := &child{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		c.pid = cmd.Process.Pid
		started <- nil
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) signal(sig syscall.Signal) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := syscall.Kill(c.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal postgres (pid %d): %w", c.pid, err)
	}
	return nil
}

// killAll ends the postmaster and all its children with SIGKILL, so that none of them can write, flush or say another
// word, and returns once all are gone.
func (c *child) killAll(deadline time.Duration) error {
	// A stopped postmaster starts no further children, and reaps none, so their ids cannot be given to others.
	if err := c.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := c.waitStopped(deadline); err != nil {
		return err
	}
	children, err := childrenOf(c.pid)
	if err != nil {
		return err
	}
	// The postmaster goes last: while it lives its children cannot become anybody else's.
	for _, pid := range append(slices.Clone(children), c.pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill postgres (pid %d): %w", pid, err)
		}
	}
	limit := time.After(deadline)
	select {
	case <-c.done:
	case <-limit:
		return fmt.Errorf("kill postgres (pid %d): still there after %v", c.pid, deadline)
	}
	return poll(deadline, func() (bool, error) {
		children = slices.DeleteFunc(children, func(pid int) bool { return !alive(pid) })
		return len(children) == 0, nil
	}, "children of the killed postgres to end")
}

func (c *child) waitStopped(deadline time.Duration) error {
	return poll(deadline, func() (bool, error) {
		state, _, err := procStat(c.pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return true, nil
		}
		return state == 'T' || state == 'Z', err
	}, "postgres to halt")
}

// childrenOf lists the direct children of pid. PostgreSQL's children have none of their own, but for the shells of
// archive commands and the like.
func childrenOf(pid int) ([]int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, entry := range entries {
		id, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		if _, parent, err := procStat(id); err == nil && parent == pid {
			children = append(children, id)
		}
	}
	return children, nil
}

func alive(pid int) bool {
	state, _, err := procStat(pid)
	return err == nil && state != 'Z' && state != 'X'
}

// procStat reads the state letter and the parent of a process from /proc/PID/stat, whose second field, the command in
// parentheses, may hold spaces and parentheses itself.
func procStat(pid int) (state byte, parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, ok := lastCut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0, 0, fmt.Errorf("read /proc/%d/stat: unknown form %q", pid, text)
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0][0], parent, err
}

func lastCut(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
