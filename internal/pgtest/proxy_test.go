package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// echo is a server that returns what it is sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// hear reads n bytes within a deadline.
func hear(conn net.Conn, n int, deadline time.Duration) (string, error) {
	conn.SetReadDeadline(time.Now().Add(deadline))
	text := make([]byte, n)
	n, err := io.ReadFull(conn, text)
	return string(text[:n]), err
}

const soon, silence = 10 * time.Second, 100 * time.Millisecond

func mustHear(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	if got, err := hear(conn, len(want), soon); err != nil || got != want {
		t.Fatalf("heard %q, %v; expected %q", got, err, want)
	}
}

func TestProxyFaults(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("faults", func(t *testing.T) {
		p := NewProxy(t, echo(t))
		conn := dial(t, p)
		say(t, conn, "hello")
		mustHear(t, conn, "hello")

		p.Stall()
		say(t, conn, "held")
		var timeout net.Error
		if got, err := hear(conn, 1, silence); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("heard %q, %v through a stalled proxy", got, err)
		}
		late := dial(t, p) // is accepted, and must wait
		say(t, late, "late")
		if got, err := hear(late, 1, silence); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("heard %q, %v through a stalled proxy", got, err)
		}
		p.Resume()
		mustHear(t, conn, "held")
		mustHear(t, late, "late")

		if n := p.Cut(); n != 2 {
			t.Errorf("cut %d connections", n)
		}
		for _, c := range []net.Conn{conn, late} {
			if _, err := hear(c, 1, soon); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after the cut: %v", err)
			}
		}
		Eventually(t, soon, func() error {
			if s := p.Stats(); s.Open != 0 || s.Accepted != 2 || s.Cuts != 2 || s.ToServer != 13 || s.ToClient != 13 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})

		conn = dial(t, p)
		p.CutAfter(ToClient, 3)
		say(t, conn, "he")
		mustHear(t, conn, "he")
		say(t, conn, "llo")
		if got, err := hear(conn, 3, soon); got != "l" || err == nil {
			t.Errorf("heard %q, %v after the limit", got, err)
		}

		conn = dial(t, p)
		say(t, conn, "here")
		mustHear(t, conn, "here")
		p.Refuse()
		if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("refused: %v", err)
		}
		say(t, conn, "still")
		mustHear(t, conn, "still")
		if err := p.Accept(); err != nil {
			t.Fatal(err)
		}
		p.SetTarget("127.0.0.1:1")                              // nobody is there
		if lost, err := net.Dial("tcp", p.Addr()); err == nil { // or else it was reset already
			if _, err := hear(lost, 1, soon); err == nil {
				t.Error("heard from nobody")
			}
			lost.Close()
		}

		p.Delay(silence)
		begin := time.Now()
		say(t, conn, "slow")
		mustHear(t, conn, "slow")
		if took := time.Since(begin); took < 2*silence {
			t.Errorf("with the delay it took %v", took)
		}
		p.Stall() // Close must end stalled connections too
		say(t, conn, "never")
	})
}

// TestProxyChaos sends much through a troubled proxy: what arrives on a connection is always the beginning of what was
// sent, and afterwards all is well.
func TestProxyChaos(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("chaos", func(t *testing.T) {
		p := NewProxy(t, echo(t))
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(i * 7)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		did := make(chan map[string]int, 1)
		go func() { did <- p.Chaos(ctx, rand.New(rand.NewPCG(1, 2)), 5*time.Millisecond) }()
		exchange := func() bool {
			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				return false
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(soon))
			go conn.Write(sent)
			got, err := io.ReadAll(io.LimitReader(conn, int64(len(sent))))
			if !bytes.Equal(got, sent[:len(got)]) {
				t.Fatalf("other bytes arrived (%d of %d, %v)", len(got), len(sent), err)
			}
			return len(got) == len(sent)
		}
		whole, broken := 0, 0
		for ctx.Err() == nil {
			if exchange() {
				whole++
			} else {
				broken++
			}
		}
		acts := <-did
		t.Logf("%d whole, %d broken: %v", whole, broken, acts)
		if len(acts) != 6 || whole == 0 || broken == 0 {
			t.Errorf("%d whole, %d broken: %v", whole, broken, acts)
		}
		if !exchange() {
			t.Error("trouble after the chaos")
		}
	})
}

func TestProxyPostgres(t *testing.T) {
	s := Shared(t)
	url := s.Database(t)
	p := NewProxy(t, s.Addr())
	conn := Connect(t, p.URL(t, url))
	if n := QueryRow[int](t, conn, "SELECT 1"); n != 1 {
		t.Fatal(n)
	}
	p.CutAfter(ToClient, 50_000)
	rows, err := conn.Query(t.Context(), "SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
	if err == nil {
		_, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err == nil {
		t.Fatal("a megabyte went through a limit of 50,000 bytes")
	}
	if n := QueryRow[int](t, Connect(t, p.URL(t, url)), "SELECT 2"); n != 2 {
		t.Fatal(n)
	}
}
