package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a stream between two ends that holds nothing.
type wire struct {
	pieces chan []byte
	ended  chan struct{}
}

func (w *wire) send(piece []byte) error {
	select {
	case w.pieces <- bytes.Clone(piece):
		return nil
	case <-w.ended:
		return io.EOF
	}
}

func (w *wire) recv() ([]byte, error) {
	select {
	case piece := <-w.pieces:
		return piece, nil
	case <-w.ended:
		return nil, io.EOF
	}
}

// open carries a connection over two wires and returns its ends.
func open(t *testing.T) (near, far net.Conn, end func(), sent *atomic.Int64) {
	t.Helper()
	ended := make(chan struct{})
	there, back := &wire{make(chan []byte), ended}, &wire{make(chan []byte), ended}
	sent = &atomic.Int64{}
	carry := func(out, in *wire) net.Conn {
		mine, pipe := net.Pipe()
		go func() { _ = Carry(context.Background(), Stream{out.send, in.recv}, pipe, sent) }()
		return mine
	}
	near, far = carry(there, back), carry(back, there)
	end = func() { close(ended) }
	return near, far, end, sent
}

// TestCarry sends random bytes in pieces of any size in both directions at once.
func TestCarry(t *testing.T) {
	near, far, end, sent := open(t)
	const size = 3 << 20
	one := func(from, to net.Conn, seed uint64) <-chan error {
		random := rand.NewChaCha8([32]byte{byte(seed)})
		data := make([]byte, size)
		_, _ = random.Read(data)
		sizes := rand.New(rand.NewPCG(seed, seed))
		done := make(chan error, 2)
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+sizes.IntN(400<<10))
				if _, err := from.Write(rest[:n]); err != nil {
					done <- err
					return
				}
				rest = rest[n:]
			}
		}()
		go func() {
			got := make([]byte, size)
			_, err := io.ReadFull(to, got)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("other bytes came")
			}
			done <- err
		}()
		return done
	}
	a, b := one(near, far, 1), one(far, near, 2)
	for _, done := range []<-chan error{a, b} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for range 500 { // the last bytes are counted after they have come
		if sent.Load() == 2*size {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if sent.Load() != 2*size {
		t.Errorf("%d bytes were counted", sent.Load())
	}
	end()
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its stream")
	}
	_ = far.Close()
}

// TestSlowReader writes to an end that nobody reads: the writer waits, whatever it has.
func TestSlowReader(t *testing.T) {
	near, far, end, sent := open(t)
	defer end()
	defer far.Close()
	_ = near.SetDeadline(time.Now().Add(200 * time.Millisecond))
	n, err := near.Write(make([]byte, 64<<20))
	if err == nil || n > 4*pieceBytes || sent.Load() > 4*pieceBytes {
		t.Errorf("%d bytes were taken and %d sent, %v", n, sent.Load(), err)
	}
	_ = near.Close()
}

// TestOddPieces ends a tunnel whose other end sends none, or too much.
func TestOddPieces(t *testing.T) {
	for _, piece := range [][]byte{nil, {}, make([]byte, MaxPieceBytes+1)} {
		mine, pipe := net.Pipe()
		err := Carry(t.Context(), Stream{func([]byte) error { return nil }, func() ([]byte, error) { return piece, nil }}, pipe, nil)
		if !errors.Is(err, ErrPiece) {
			t.Errorf("%d bytes: %v", len(piece), err)
		}
		if _, err := mine.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes: %v", len(piece), err)
		}
	}
}

// TestListener gives out its connection once, and ends when it is closed.
func TestListener(t *testing.T) {
	mine, pipe := net.Pipe()
	defer mine.Close()
	l := NewListener(pipe)
	if conn, err := l.Accept(); err != nil || conn != pipe {
		t.Fatal(conn, err)
	}
	go l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	_ = l.Close()
}
