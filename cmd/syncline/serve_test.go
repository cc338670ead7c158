package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestProcessStopsServersFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newProcess(ctx)
	var mu sync.Mutex
	var order []string
	part := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return ctx.Err()
		}
	}
	p.work(part("worker"))
	p.serve(part("server"))
	cancel()
	if err := p.wait(time.Minute); err != nil {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(order, []string{"server", "worker"}) {
		t.Errorf("stopped %v", order)
	}
}

func TestProcessEndsWithAFailure(t *testing.T) {
	p := newProcess(t.Context())
	broken := errors.New("broken")
	p.work(func(context.Context) error { return broken })
	p.serve(func(ctx context.Context) error { <-ctx.Done(); return nil })
	if err := p.wait(time.Minute); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	p = newProcess(t.Context())
	p.work(func(context.Context) error { return nil })
	if err := p.wait(time.Minute); err == nil {
		t.Error("a service that ends by itself is no failure")
	}
}

func TestProcessCutsOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newProcess(ctx)
	release := make(chan struct{})
	p.work(func(context.Context) error { <-release; return nil })
	cancel()
	if err := p.wait(time.Millisecond); !errors.Is(err, errStopLimit) {
		t.Errorf("got %v", err)
	}
	close(release)
	p.workers.Wait()
}

func TestTakenPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := listener.Addr().String()
	for _, flag := range []string{"--grpc", "--http"} {
		args := []string{"replica", "--postgres", "postgres://u:hidden@127.0.0.1:1/d", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", flag, taken}
		_, errOut, code := command(t, nil, args...)
		if code != exitFailed || !strings.Contains(errOut, taken+" is in use") || !strings.Contains(errOut, "with "+flag) {
			t.Errorf("exit code %d, %s", code, errOut)
		}
	}
}

func TestNoDatabase(t *testing.T) {
	_, errOut, code := command(t, nil, "replica", "--postgres", "postgres://u:hidden@127.0.0.1:1/d", "--grpc", "127.0.0.1:0", "--http", "")
	if code != exitFailed || !strings.Contains(errOut, "127.0.0.1:1") || strings.Contains(errOut, "hidden") || strings.Count(errOut, "\n") != 1 {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestBanner(t *testing.T) {
	var text strings.Builder
	for i := range roles {
		f := &serverFlags{postgres: "postgres://u:hidden@db/shop", grpc: "0.0.0.0:7400", http: "127.0.0.1:7480"}
		if i < 3 {
			f.protect.connect.files.Certificate = "cert.pem"
		}
		banner(&text, &roles[i], f, i < 2 || i == 3)
	}
	golden(t, "banner", text.String())
}

func TestOwnAddress(t *testing.T) {
	for listen, want := range map[string]string{
		"0.0.0.0:7400": "127.0.0.1:7400", "[::]:7400": "127.0.0.1:7400", ":7400": "127.0.0.1:7400", "10.0.0.1:7400": "10.0.0.1:7400", "[::1]:7400": "[::1]:7400",
	} {
		if got := ownAddress(listen); got != want {
			t.Errorf("ownAddress(%q) = %q", listen, got)
		}
	}
}
