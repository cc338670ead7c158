// Package process runs programs that end with the process that started them at the latest.
package process

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that ends with us at the latest.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it is reaped
	err  error         // how it ended; to be read after done
}

// Launch starts a program. The thread that starts it stays until it ends, for the kernel ties the end of the child to it.
func Launch(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = attributes()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if p.err = cmd.Wait(); p.err == nil {
			p.err = fmt.Errorf("exit status 0")
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended and Err may be read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the process ended, which is never nil, or nil while it runs.
func (p *Process) Err() error {
	if !p.Ended() {
		return nil
	}
	return p.err
}

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (p *Process) Kill() error {
	if p.Ended() {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !p.Ended() {
		return fmt.Errorf("kill %s (pid %d): %w", p.cmd.Path, p.PID(), err)
	}
	<-p.done
	return nil
}

// Terminate asks the process to end, and kills it if it does not.
func (p *Process) Terminate(patience time.Duration) error {
	if p.Ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		select {
		case <-p.done:
			return nil
		case <-time.After(patience):
		}
	}
	return p.Kill()
}
