package main

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("12 (a ) b) S 7 12 12 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 5 6 7"))
	if want := (cpuTime{own: 2, reaped: 0.5, parent: 7}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "12 (a) S 7", "12 (a) S 7 12 12 0 -1 4194560 1 2 3 4 x 50 30 20"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParsePeak(t *testing.T) {
	got, err := parsePeak("Name:\tpostgres\nVmHWM:\t    3000 kB\nVmRSS:\t 2000 kB\nRssShmem:\t    1000 kB\n")
	if err != nil || got != 2000*1024 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "VmHWM:\tmuch\n"} {
		if _, err := parsePeak(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestOwnProcess reads what the kernel says of this one.
func TestOwnProcess(t *testing.T) {
	if peak, err := peakMemory(os.Getpid()); err != nil || peak <= 0 {
		t.Errorf("peak %v, %v", peak, err)
	}
	if own, err := readCPU(os.Getpid()); err != nil || own.parent != os.Getppid() {
		t.Errorf("%+v, %v", own, err)
	}
	if total, err := clusterCPU(os.Getppid()); err != nil || total < ownCPU(os.Getpid()) {
		t.Errorf("%v, %v", total, err)
	}
}

// TestSent sends over a connection and asks the kernel how much that was.
func TestSent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	const n = 12345
	if _, err := server.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	port, peer := listener.Addr().(*net.TCPAddr).Port, client.LocalAddr().(*net.TCPAddr).Port
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = poll(ctx, time.Millisecond, func() (bool, error) {
		found, err := sent(port)
		return found[peer] == n, err
	})
	if err != nil {
		found, _ := sent(port)
		t.Errorf("%v: of %d bytes the kernel knows %v", err, n, found)
	}
}
