package demo

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a program that ends with us at the latest.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it is reaped
	err  error         // how it ended; to be read after done
}

// launch starts a program. The thread that starts it stays until it ends, for the kernel ties the end of the child to it.
func launch(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = attributes()
	p := &process{cmd: cmd, done: make(chan struct{})}
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

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process with SIGKILL and returns when it is gone.
func (p *process) kill() error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !p.ended() {
		return fmt.Errorf("kill %s (pid %d): %w", p.cmd.Path, p.pid(), err)
	}
	<-p.done
	return nil
}

// terminate asks the process to end, and kills it if it does not.
func (p *process) terminate(patience time.Duration) error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		select {
		case <-p.done:
			return nil
		case <-time.After(patience):
		}
	}
	return p.kill()
}
