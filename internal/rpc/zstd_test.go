package rpc

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

// counted counts what a connection reads.
type counted struct {
	net.Conn
	read *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// dialCounted connects to a service and counts the bytes that come from it.
func dialCounted(t testing.TB, s *service, opts ...DialOption) (*grpc.ClientConn, *atomic.Int64) {
	t.Helper()
	read := new(atomic.Int64)
	conn, err := Dial("bufconn:1", append(opts, WithDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := s.listen.DialContext(ctx)
		return counted{c, read}, err
	}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, read
}

func TestCompression(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var frames [][]byte
	total := 0
	for i := range 40 {
		frame := bytes.Repeat([]byte("a row that looks like the row before it;"), 100*(i+1))
		for range 50 {
			frame[random.IntN(len(frame))] = byte(random.Uint32())
		}
		frames = append(frames, frame)
		total += len(frame)
	}
	for name, test := range map[string]struct {
		options []DialOption
		most    int
	}{
		"zstd": {[]DialOption{WithCompression()}, total / 5},
		"none": {nil, total * 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.logger.follow = func(_ *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
				for _, frame := range frames {
					if err := stream.SendMsg(&Frame{Data: frame}); err != nil {
						return err
					}
				}
				return nil
			}
			testFrames(t, s, frames, test.most, test.options)
		})
	}
}

func testFrames(t *testing.T, s *service, frames [][]byte, most int, options []DialOption) {
	t.Helper()
	conn, read := dialCounted(t, s, options...)
	stream, err := OpenFrames(t.Context(), conn, loggerv1.LoggerService_Follow_FullMethodName, &loggerv1.FollowRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range frames {
		var frame Frame
		if err := stream.RecvMsg(&frame); err != nil || !bytes.Equal(frame.Data, want) {
			t.Fatalf("frame %d: %d bytes instead of %d, %v", i, len(frame.Data), len(want), err)
		}
	}
	if got := read.Load(); got > int64(most) || got == 0 {
		t.Errorf("%d bytes on the wire, expected at most %d", got, most)
	}
}

func TestCompressedFrameBeyondTheLimit(t *testing.T) {
	s := start(t)
	s.logger.follow = func(_ *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
		return stream.SendMsg(&Frame{Data: make([]byte, 4*MaxFrameBytes)})
	}
	stream, err := OpenFrames(t.Context(), s.conn, loggerv1.LoggerService_Follow_FullMethodName, &loggerv1.FollowRequest{}, grpc.UseCompressor(zstdName))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&Frame{}); Code(err) != codes.ResourceExhausted {
		t.Errorf("zeros that are small only on the wire: %v", err)
	}
}
