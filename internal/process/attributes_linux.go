package process

import "syscall"

// attributes put a child into a process group of its own, so that Ctrl-C reaches us alone and the order of the end is
// ours, and have the kernel end it when the thread that started it is gone: see Launch.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
