package walsender

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// open makes a socket as Start leaves it.
func open(t testing.TB) (client *socket, server net.Conn) {
	t.Helper()
	conn, server := connect(t, dialSocket)
	client = conn.(*socket)
	full := make([]byte, 64<<10)
	go func() { _, _ = server.Write(make([]byte, len(full))) }()
	if _, err := io.ReadFull(client, full); err != nil {
		t.Fatal(err)
	}
	if !client.narrow() {
		t.Fatal("the window is not narrow")
	}
	return client, server
}

func TestNarrowSocketThatFallsSilent(t *testing.T) {
	client, server := open(t)
	c := &Conn{stream: stream{source: lowWater{source: client}, max: 1 << 20, local: client, pace: pacer{narrow: true}}}
	fallSilent(t, c, server, func() bool { return c.stream.pace.busy })
}

// Most of the messages of a busy stream share a segment with others. On a machine that is busy with other things a stream may not be.
func TestNarrowSocketGathers(t *testing.T) {
	const messages, attempts = 50_000, 5
	for range attempts {
		got := gathered(t, messages)
		if got <= messages/3 {
			return
		}
		t.Logf("%d messages came in %d segments", messages, got)
	}
	t.Errorf("messages were not gathered in %d attempts", attempts)
}

// gathered sends as many small messages and returns the number of segments in which they came.
func gathered(t *testing.T, messages int) int {
	t.Helper()
	client, server := open(t)
	before := segments(t, client)
	go func() {
		written := data(60)
		for range messages {
			if _, err := server.Write(written); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	c := &Conn{stream: stream{source: lowWater{source: client}, max: 1 << 20, local: client, pace: pacer{narrow: true}}}
	for range messages {
		if _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	return segments(t, client) - before
}

// segments returns how many segments with data have come.
func segments(t *testing.T, s *socket) int {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Data_segs_in)
}

// While the kernel takes less for a full segment, the server's do not fit into a window of that size: it is wide then.
func TestWindowIsNeverSmallerThanASegment(t *testing.T) {
	client, server := open(t)
	send := func(bytes int) {
		t.Helper()
		go func() { _, _ = server.Write(make([]byte, bytes)) }()
		if _, err := io.ReadFull(client, make([]byte, bytes)); err != nil {
			t.Fatal(err)
		}
	}
	const smaller = window/2 + 1000
	for range 20 {
		send(smaller)
	}
	if info, err := unix.GetsockoptTCPInfo(client.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.Rcv_mss != smaller {
		t.Skipf("this kernel does not learn from segments of %d bytes: %+v, %v", smaller, info, err)
	}
	if client.narrow() || client.clamp != roomBytes {
		t.Errorf("the window is %d bytes", client.clamp)
	}
	send(64 << 10)
	if !client.narrow() || client.clamp <= smaller {
		t.Errorf("the window is %d bytes after full segments", client.clamp)
	}
}

// Rows larger than the window come whole, also when they come slowly.
func TestNarrowSocketLargeMessages(t *testing.T) {
	client, server := open(t)
	sizes := []int{1, 4090, 8180, 8192, 20_000, 3, 1 << 20, 60}
	go func() {
		for i, size := range sizes {
			wire := data(size)
			for len(wire) > 0 {
				n := min(len(wire), 1+len(wire)/(i+1))
				if _, err := server.Write(wire[:n]); err != nil {
					t.Error(err)
					return
				}
				wire = wire[n:]
			}
		}
	}()
	c := &Conn{stream: stream{source: lowWater{source: client}, max: 2 << 20, local: client, pace: pacer{narrow: true}}}
	for _, size := range sizes {
		m, err := c.Receive()
		if err != nil || len(m.Data) != size {
			t.Fatalf("%d bytes of %d: %v", len(m.Data), size, err)
		}
	}
}

// A server that waits for room is never left waiting for a timer of the kernel's, which takes 40 to 200 ms: neither with a backlog nor
// with one transaction at a time, whatever the sizes are, also while we write.
func TestNarrowSocketNeverStalls(t *testing.T) {
	const transactions, limit = 400, 8 * time.Second // ten times what it takes, and half of what 40 ms for each would
	for _, size := range []int{60, 300, 600, 1000, 2000, 3000, 4090, 5000, 8170, 9000, 20_000, 100_000} {
		for name, window := range map[string]int{"backlog": transactions, "one by one": 1} {
			t.Run(fmt.Sprint(size, " ", name), func(t *testing.T) {
				client, server := open(t)
				go func() { _, _ = io.Copy(io.Discard, server) }()
				read := make(chan struct{}, transactions)
				var parts errgroup.Group
				parts.Go(func() error {
					for i := range transactions {
						if i >= window {
							<-read
						}
						for _, bytes := range []int{50, size, size, 40} {
							if _, err := server.Write(data(bytes)); err != nil {
								return err
							}
						}
					}
					return nil
				})
				stop := time.AfterFunc(limit, func() { _ = client.Close() })
				c := &Conn{stream: stream{source: lowWater{source: client}, max: 1 << 20, local: client, pace: pacer{narrow: true}}}
				for i := range 4 * transactions {
					if _, err := c.Receive(); err != nil {
						t.Fatalf("after %d messages: %v", i, err)
					}
					switch i % 4 {
					case 1:
						if _, err := client.Write([]byte("status")); err != nil {
							t.Fatal(err)
						}
					case 3:
						read <- struct{}{}
					}
				}
				stop.Stop()
				if err := parts.Wait(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// later runs what is to end a call that waits.
func later(do func()) { time.AfterFunc(20*time.Millisecond, do) }

func TestSocketEnds(t *testing.T) {
	var b [10]byte
	for name, c := range map[string]struct {
		end  func(client *socket, server net.Conn)
		want error
	}{
		"closed here":    {func(client *socket, _ net.Conn) { _ = client.Close() }, net.ErrClosed},
		"closed there":   {func(_ *socket, server net.Conn) { _ = server.Close() }, io.EOF},
		"reset there":    {func(_ *socket, server net.Conn) { _ = server.(*net.TCPConn).SetLinger(0); _ = server.Close() }, unix.ECONNRESET},
		"deadline":       {func(client *socket, _ net.Conn) { _ = client.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"later deadline": {func(client *socket, _ net.Conn) { _ = client.SetDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := open(t)
			later(func() { c.end(client, server) })
			if n, err := client.Read(b[:]); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("%d, %v, want %v", n, err, c.want)
			}
			if n, err := client.Read(b[:]); n != 0 || err == nil { // it stays so
				t.Errorf("the next read brought %d bytes", n)
			}
		})
	}
}

// A status update can be sent after Interrupt.
func TestSocketInterrupted(t *testing.T) {
	var b [10]byte
	client, server := open(t)
	later(func() { _ = client.SetReadDeadline(time.Now()) })
	if _, err := client.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if _, err := client.Write([]byte("status")); err != nil {
		t.Errorf("write: %v", err)
	}
	if n, err := server.Read(b[:]); err != nil || !bytes.Equal(b[:n], []byte("status")) {
		t.Errorf("the server read %q, %v", b[:n], err)
	}
}

// A write that nobody reads ends with its deadline, and a deadline that passes while nothing waits ends nothing.
func TestSocketWriteDeadline(t *testing.T) {
	client, server := open(t)
	if err := client.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write after the deadline: %v", err)
	}
	if err := client.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = server.Write([]byte("x")) }()
	if n, err := client.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	if err := client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	block, written := make([]byte, 1<<20), 0
	for {
		n, err := client.Write(block)
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || written > 1<<30 {
			t.Fatalf("write: %v after %d bytes", err, written)
		}
	}
}

func TestSocketClosedTwice(t *testing.T) {
	client, _ := open(t)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := client.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if client.narrow() {
		t.Error("the window of a closed connection is narrow")
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
