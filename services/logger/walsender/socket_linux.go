package walsender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jackc/pgx/v5/pgconn"
)

// windowUnit is what windows are multiples of, and full segments of a connection over loopback too, with timestamps and without.
const windowUnit = 4

// roomBytes is the receive buffer: it holds a window of the smallest messages, of which the kernel counts some 1 kB each. That it is set
// keeps the kernel from making the window larger by itself.
const roomBytes = 128 << 10

// socket is a TCP connection to a server on this machine. A walsender sends every message by itself, and over loopback each of them
// is a segment that is received, acknowledged and announced at once, in the walsender's own time: most of what a stream of small
// messages costs it. Gathering is left to the sender's kernel by a receiver that acknowledges nothing until it reads:
// the window closes after a few messages, and what comes after them waits in one piece. That takes a window no larger than what the receiving
// kernel takes for a full segment, since it acknowledges once more than that lies unread; and full segments no larger than the window, since
// the sender waits for as much room as a segment needs.
//
// Reads block a thread instead of waiting in the runtime's poller, which would be woken by each segment, also while nobody reads.
//
// Source: tcp_input.c (__tcp_ack_snd_check, tcp_measure_rcv_mss), tcp_output.c (__tcp_select_window, tcp_snd_wnd_test) in Linux.
type socket struct {
	local, remote net.Addr

	full  int // size of the server's full segments; 0 before narrow is called. Only the reader uses it, and clamp.
	clamp int // the largest window, as set; 0 before that

	fd     int
	closed atomic.Bool
	use    sync.RWMutex // held for reading while fd is used, for writing to close it

	read, write deadline
}

// deadline ends a read or write that waits. There is no way back from that: the connection's half is closed.
type deadline struct {
	mu     sync.Mutex
	at     time.Time
	timer  *time.Timer
	active int  // reads or writes in the kernel
	cut    bool // one of them was ended
}

// dialer dials a server on this machine by itself, and all others as before.
func dialer(others pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !at.Addr().Unmap().IsLoopback() {
			return others(ctx, network, address)
		}
		return dialSocket(ctx, network, address)
	}
}

func dialSocket(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{ControlContext: func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error {
			// Where one of them is refused, the window is not made narrow.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, window)
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, roomBytes)
			return nil
		})
	}}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // pgconn says what it dialed
	}
	defer func() { _ = conn.Close() }() // the descriptor that the runtime's poller knows
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("dial %s: %w", address, errors.ErrUnsupported)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	s := &socket{local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	err = control(raw, func(fd int) (err error) {
		s.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err //nolint:wrapcheck // wrapped below
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	if err := unix.SetNonblock(s.fd, false); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s: %w", address, err), s.Close())
	}
	return s, nil
}

func control(raw syscall.RawConn, do func(fd int) error) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err //nolint:wrapcheck // wrapped by the callers
	}
	return failed
}

// narrow makes the window exactly as large as a full segment, when the kernel takes that for one. A window that is larger moves on
// before we read, and so does any while the kernel takes less for a full segment, as it may when two smaller ones of the same size have come: then
// the window is as wide as there is room, as in any connection. It tells whether the window is narrow. Full segments, and nothing else of half
// their size, have to have come before the first call.
func (s *socket) narrow() bool {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return false
	}
	taken := 0
	if info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		taken = int(info.Rcv_mss)
	}
	if s.full == 0 {
		s.full = roomBytes // never narrow
		if taken >= window/2 && taken <= window && taken%windowUnit == 0 {
			s.full = taken
		}
	}
	clamp := roomBytes
	if taken == s.full {
		clamp = s.full
	}
	if clamp != s.clamp {
		if unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, clamp) != nil {
			return false
		}
		s.clamp = clamp
	}
	return clamp != roomBytes
}

func (s *socket) Read(p []byte) (int, error) { return s.transfer(&s.read, "read", p, unix.Read) }

func (s *socket) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := s.transfer(&s.write, "write", p[written:], unix.Write)
		if written += n; err != nil {
			return written, err
		}
	}
	s.acknowledge()
	return written, nil
}

// acknowledge has the kernel acknowledge what has been read, and go on to do so when all has been. After a write it waits up to 40 ms for
// another one, while the server may wait for the room that its next segment needs.
func (s *socket) acknowledge() {
	s.use.RLock()
	defer s.use.RUnlock()
	if !s.closed.Load() {
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // it is later without
	}
}

func (s *socket) transfer(d *deadline, call string, p []byte, do func(int, []byte) (int, error)) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	if err := d.begin(); err != nil {
		return 0, err
	}
	n, err := do(s.fd, p)
	for errors.Is(err, unix.EINTR) {
		n, err = do(s.fd, p)
	}
	cut := d.end()
	switch {
	case n > 0:
		return n, nil
	case s.closed.Load():
		return 0, net.ErrClosed
	case cut:
		return 0, os.ErrDeadlineExceeded
	case err == nil:
		return 0, io.EOF
	}
	// As that of a connection of package net, so that it is told apart in the same way.
	return 0, &net.OpError{Op: call, Net: "tcp", Source: s.local, Addr: s.remote, Err: os.NewSyscallError(call, err)}
}

// Close wakes whoever reads or writes.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	s.read.stop()
	s.write.stop()
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR) // the server may have closed it
	s.use.Lock()
	defer s.use.Unlock()
	return os.NewSyscallError("close", unix.Close(s.fd))
}

func (s *socket) LocalAddr() net.Addr { return s.local }

func (s *socket) RemoteAddr() net.Addr { return s.remote }

func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *socket) SetReadDeadline(t time.Time) error { return s.set(&s.read, t, unix.SHUT_RD) }

func (s *socket) SetWriteDeadline(t time.Time) error { return s.set(&s.write, t, unix.SHUT_WR) }

// set shuts a half of the connection down when its deadline passes while somebody waits for it.
func (s *socket) set(d *deadline, t time.Time, half int) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at = t; d.timer != nil {
		d.timer.Stop()
	}
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			if d.pass() {
				s.shutdown(half)
			}
		})
	}
	return nil
}

func (s *socket) shutdown(half int) {
	s.use.RLock()
	defer s.use.RUnlock()
	if !s.closed.Load() {
		_ = unix.Shutdown(s.fd, half) // the server may have closed it
	}
}

func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut || d.over() {
		return os.ErrDeadlineExceeded
	}
	d.active++
	return nil
}

func (d *deadline) end() (cut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	return d.cut
}

func (d *deadline) over() bool { return !d.at.IsZero() && time.Until(d.at) <= 0 }

// pass tells whether somebody is to be woken.
func (d *deadline) pass() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.active > 0 && d.over() {
		d.cut = true
	}
	return d.cut
}

func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}
