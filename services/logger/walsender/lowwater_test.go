package walsender

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"
)

// connect makes a connection to a server on this machine.
func connect(t testing.TB, dial func(ctx context.Context, network, address string) (net.Conn, error)) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = dial(t.Context(), "tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

func TestBusySocketThatFallsSilent(t *testing.T) {
	client, server := connect(t, new(net.Dialer).DialContext)
	c := &Conn{stream: stream{source: lowWater{source: client}, max: 1 << 20}}
	c.stream.source.use(client)
	fallSilent(t, c, server, func() bool { return c.stream.source.mark == busyMark })
}

// fallSilent stops a busy stream at any place, with less lying in the socket than a busy one is woken for. What comes then arrives at
// once.
func fallSilent(t *testing.T, c *Conn, server net.Conn, isBusy func() bool) {
	const rounds, burst = 30, 500
	received := make(chan int)
	go func() {
		defer close(received)
		busy := 0
		for range rounds {
			for range burst {
				m, err := c.Receive()
				if err != nil {
					t.Error(err)
					return
				}
				if isBusy() {
					busy++
				}
				received <- len(m.Data)
			}
		}
		if busy == 0 {
			t.Error("the stream was never busy")
		}
	}()
	written := data(100)
	for round := range rounds {
		silent := make(chan struct{}) // all but the last message has come
		wire := bytes.Repeat(written, burst)
		cut := len(wire) - 1 - round*len(written)/rounds
		go func() {
			for at := 0; at < cut; at += len(written) {
				if _, err := server.Write(wire[at:min(at+len(written), cut)]); err != nil {
					t.Error(err)
				}
			}
			<-silent
			if _, err := server.Write(wire[cut:]); err != nil {
				t.Error(err)
			}
		}()
		for n := range burst {
			select {
			case size := <-received:
				if size != 100 {
					t.Fatalf("a message of %d bytes", size)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("round %d: message %d has not come", round, n)
			}
			if n == burst-2 {
				close(silent)
			}
		}
	}
}
