// Package tunnel carries the bytes of one connection over a stream of messages, whole and in order, or ends it. It holds no more than
// one piece for each direction: whoever does not read stops the writer at the other end.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

const (
	// pieceBytes is the largest message that is sent.
	pieceBytes = 128 << 10
	// MaxPieceBytes is the largest message that is taken.
	MaxPieceBytes = 1 << 20
)

var (
	// ErrPiece says that the other end sends what is no piece of a connection.
	ErrPiece = errors.New("the other end of the tunnel sent something else than a piece of the connection")
	// errEnded says that this end's user closed the connection.
	errEnded = errors.New("the connection in the tunnel was closed")
)

// Stream sends and receives pieces: what it is given it has sent, or copied, when Send returns; what it returns belongs to the caller. Its
// Recv returns an error once the stream has ended.
type Stream struct {
	Send func([]byte) error
	Recv func() ([]byte, error)
}

// Carry carries what is written at the other end of the pipe to the stream, and what comes from there back, until either ends or ctx is
// done; then it closes the pipe. The error says what ended first. Sent counts the bytes; it may be nil.
//
// One of its two goroutines may outlive it, until the stream's end: the caller ends that.
func Carry(ctx context.Context, stream Stream, pipe net.Conn, sent *atomic.Int64) error {
	defer func() { _ = pipe.Close() }()
	ended := make(chan error, 2)
	go func() { ended <- receive(stream, pipe) }()
	go func() { ended <- send(stream, pipe, sent) }()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		return err
	}
}

func receive(stream Stream, pipe net.Conn) error {
	for {
		piece, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(piece) == 0 || len(piece) > MaxPieceBytes {
			return fmt.Errorf("%w: %d bytes", ErrPiece, len(piece))
		}
		if _, err := pipe.Write(piece); err != nil {
			return pipeError(err)
		}
	}
}

func send(stream Stream, pipe net.Conn, sent *atomic.Int64) error {
	buffer := make([]byte, pieceBytes)
	for {
		n, err := pipe.Read(buffer)
		if n > 0 {
			if err := stream.Send(buffer[:n]); err != nil {
				return err
			}
			if sent != nil {
				sent.Add(int64(n))
			}
		}
		if err != nil {
			return pipeError(err)
		}
	}
}

func pipeError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return errEnded
	}
	return err
}

// Listener gives out one connection, and then waits until it is closed.
type Listener struct {
	conn   chan net.Conn
	closed chan struct{}
	end    sync.Once
}

// NewListener makes a listener for a connection.
func NewListener(conn net.Conn) *Listener {
	l := &Listener{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- conn
	return l
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.end.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "tunnel" }
func (address) String() string  { return "tunnel" }
