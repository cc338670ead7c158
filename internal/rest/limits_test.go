package rest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// open begins a stream, and returns its status and what ends it.
func (f *fake) open(t *testing.T) (code int, end func()) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/v1/replications/shop:watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer.StatusCode, func() { _ = answer.Body.Close() }
}

// hold is a stream that goes on until its client ends it.
func hold(stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
	if err := stream.Send(&applierv1.WatchReplicationResponse{}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// TestPlaces fills the places of streams, which leaves some for calls, and gets them back.
func TestPlaces(t *testing.T) {
	limits := DefaultLimits()
	limits.Requests, limits.Streams = 4, 2
	f := start(t, limits)
	f.applier.watch = hold
	first, end := f.open(t)
	second, _ := f.open(t)
	if first != http.StatusOK || second != http.StatusOK {
		t.Fatalf("%d, %d", first, second)
	}
	answer, body := f.call(t, "GET", "/v1/replications/shop:watch", "")
	requireProblem(t, answer, body, http.StatusTooManyRequests, reasonTooManyRequests)
	if answer, body = f.call(t, "POST", "/v1/replications/shop:start", ""); answer.StatusCode != http.StatusOK {
		t.Errorf("a call beside the streams: %d %s", answer.StatusCode, body)
	}
	end()
	deadline := time.Now().Add(patience)
	for code, _ := f.open(t); code != http.StatusOK; code, _ = f.open(t) {
		if time.Now().After(deadline) {
			t.Fatal("the place is not given back")
		}
	}
	for range cap(f.handler.requests) - len(f.handler.requests) {
		f.handler.requests <- struct{}{}
	}
	answer, body = f.call(t, "POST", "/v1/replications/shop:start", "")
	requireProblem(t, answer, body, http.StatusTooManyRequests, reasonTooManyRequests)
	if answer, body = f.call(t, "GET", "/openapi.json", ""); answer.StatusCode != http.StatusOK {
		t.Errorf("the document: %d %s", answer.StatusCode, body)
	}
}

// TestSlowBody gives up a client that sends its body too slowly.
func TestSlowBody(t *testing.T) {
	limits := DefaultLimits()
	limits.Body = 200 * time.Millisecond
	f := start(t, limits)
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/replications HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	requireProblem(t, reply{answer.StatusCode, answer.Header}, string(body), http.StatusRequestTimeout, reasonBodyTimeout)
}

// TestLargeHeader refuses a header beyond any use.
func TestLargeHeader(t *testing.T) {
	f := start(t, DefaultLimits())
	answer, _ := f.call(t, "GET", "/v1/replications/shop", "", func(r *http.Request) { r.Header.Set("X-Large", strings.Repeat("x", 64<<10)) })
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", answer.StatusCode)
	}
}

// TestStreamOutlivesLimitsOfCalls keeps a quiet stream longer than a body or a call may take.
func TestStreamOutlivesLimitsOfCalls(t *testing.T) {
	limits := DefaultLimits()
	limits.Body, limits.Unary, limits.Stall = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	f := start(t, limits)
	f.applier.watch = func(stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
		for range 2 {
			if err := stream.Send(&applierv1.WatchReplicationResponse{}); err != nil {
				return err
			}
			select {
			case <-stream.Context().Done():
				return stream.Context().Err()
			case <-time.After(500 * time.Millisecond):
			}
		}
		return nil
	}
	if _, body := f.call(t, "GET", "/v1/replications/shop:watch", ""); strings.Count(body, "\n") != 2 || strings.Contains(body, "error") {
		t.Errorf("got %s", body)
	}
}

// TestStalledReader cuts off a client that reads nothing, and ends its call.
func TestStalledReader(t *testing.T) {
	limits := DefaultLimits()
	limits.Stall = 200 * time.Millisecond
	f := start(t, limits)
	ended := make(chan struct{})
	f.applier.watch = func(stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
		defer close(ended)
		large := &applierv1.WatchReplicationResponse{Replication: &applierv1.Replication{Reason: strings.Repeat("x", 1<<20)}}
		for {
			if err := stream.Send(large); err != nil {
				return err
			}
		}
	}
	f.open(t)
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the call goes on")
	}
}
