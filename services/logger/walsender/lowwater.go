package walsender

import (
	"io"
	"net"
	"syscall"
)

// lowWater reads a socket of which the kernel says nothing, while the stream is busy, until much has come. The pacer's pauses leave
// messages lying; but each one still woke the process that sleeps, by way of the runtime's poller, and that was most of what it cost,
// here and in the walsender. Whenever a read would wait, the kernel is told to wake it at the first byte again.
type lowWater struct {
	source io.Reader
	raw    syscall.RawConn // nil: a connection of another kind, which is read as it is
	busy   bool            // the next read comes after a pause
	mark   int             // as set; 0 is the kernel's own, 1
}

// busyMark is well within the receive buffer, so that the server never waits for us.
const busyMark = 32 << 10

// use takes the connection that source reads from. A TLS record may arrive in parts, so an encrypted one is left alone.
func (l *lowWater) use(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		l.raw, _ = tcp.SyscallConn() // without it, it is as if there were none
	}
}

func (l *lowWater) Read(p []byte) (int, error) {
	if l.raw != nil && (l.busy || l.mark > 1) {
		if l.busy && l.waits() {
			l.set(busyMark)
		} else {
			l.set(1)
		}
	}
	return l.source.Read(p) //nolint:wrapcheck // a reader passes errors on
}

// waits tells whether there is something to read.
func (l *lowWater) waits() bool {
	n := 0
	_ = l.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n > 0
}

func (l *lowWater) set(mark int) {
	if l.mark == mark {
		return
	}
	_ = l.raw.Control(func(fd uintptr) {
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, mark) == nil {
			l.mark = mark
		}
	})
}
