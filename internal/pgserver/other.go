//go:build !linux

package pgserver

import (
	"errors"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// errPlatform means that servers of our own can be run on Linux only: elsewhere nothing ends them with their parent.
var errPlatform = errors.New("running PostgreSQL servers of our own needs Linux")

type account struct{}

func serverAccount() account { return account{} }

func (account) sysProcAttr() *syscall.SysProcAttr { return nil }
func (account) own(string) error                  { return nil }
func (account) canEnter(string) error             { return errPlatform }

type child struct {
	pid  int
	done chan struct{}
	err  error
}

func run(*exec.Cmd) (*child, error)           { return nil, errPlatform }
func (*child) signal(syscall.Signal) error    { return errPlatform }
func (*child) killAll(time.Duration) error    { return errPlatform }
func ReservePort() (int, net.Listener, error) { return 0, nil, errPlatform }
func holdDir(string) (func(), error)          { return nil, errPlatform }
func sweepStale(string, string)               {}
