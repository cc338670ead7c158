package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestGateway serves what a server elsewhere serves, and nothing else.
func TestGateway(t *testing.T) {
	server := serveFake(t, identify("applier"), &fakeApplier{replication: replication()})
	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, []string{"gateway", "--addr", server, "--http", "127.0.0.1:0"}, nil, write, io.Discard)
		_ = write.Close()
	}()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if got := <-code; got != exitDone {
			t.Errorf("exit code %d", got)
		}
	}()
	lines := bufio.NewScanner(read)
	url := ""
	for url == "" && lines.Scan() {
		if fields := strings.Fields(lines.Text()); fields[0] == "HTTP" {
			url = "http://" + fields[1]
		}
	}
	for path, want := range map[string]int{
		"/v1/replications/shop": http.StatusOK, "/v1/replications/none": http.StatusNotFound, "/v1/server": http.StatusOK,
		"/v1/logger/state": http.StatusNotFound, "/readyz": http.StatusOK, "/docs": http.StatusOK,
	} {
		answer, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != want {
			t.Errorf("%s: %d %s, %v", path, answer.StatusCode, body, err)
		}
	}
}

func TestGatewayNeedsAServer(t *testing.T) {
	_, errOut, code := command(t, nil, "gateway", "--addr", "127.0.0.1:1", "--http", "127.0.0.1:0")
	if code != exitFailed || !strings.Contains(errOut, "no answer from 127.0.0.1:1") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}
