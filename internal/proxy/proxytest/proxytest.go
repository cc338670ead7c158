// Package proxytest runs small proxies for tests: HTTP with CONNECT, and SOCKS 5. They note what they were asked for.
package proxytest

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

// Proxy is a running proxy. It wants a user and a password where User is set.
type Proxy struct {
	Address        string
	User, Password string

	// Elsewhere replaces the address that is connected to, so that names need not exist.
	Elsewhere string

	mu    sync.Mutex
	asked []string
}

// Asked returns the addresses that it was asked to connect to, with hosts as it got them.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// HTTP runs a proxy for CONNECT on a listener, which may be encrypted.
func HTTP(t testing.TB, listener net.Listener, p *Proxy) *Proxy {
	t.Helper()
	return p.serve(t, listener, p.connect)
}

// SOCKS runs a SOCKS 5 proxy.
func SOCKS(t testing.TB, listener net.Listener, p *Proxy) *Proxy {
	t.Helper()
	return p.serve(t, listener, p.socks)
}

// Listen opens a listener on this machine.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// serve hands each connection to a function that returns where it leads, or "" to end it.
func (p *Proxy) serve(t testing.TB, listener net.Listener, greet func(conn net.Conn, reader *bufio.Reader) (address string, accept func() error)) *Proxy {
	t.Helper()
	p.Address = listener.Addr().String()
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	track := func(conn net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[conn] = true
	}
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			track(conn)
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				reader := bufio.NewReader(conn)
				address, accept := greet(conn, reader)
				if address == "" {
					return
				}
				p.mu.Lock()
				p.asked = append(p.asked, address)
				p.mu.Unlock()
				if p.Elsewhere != "" {
					address = p.Elsewhere
				}
				far, err := net.Dial("tcp", address)
				if err != nil || accept() != nil {
					return
				}
				track(far)
				running.Go(func() {
					defer func() { _ = conn.Close() }()
					_, _ = io.Copy(conn, far)
				})
				_, _ = io.Copy(far, reader)
				_ = far.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return p
}

func (p *Proxy) connect(conn net.Conn, reader *bufio.Reader) (string, func() error) {
	request, err := http.ReadRequest(reader)
	if err != nil || request.Method != http.MethodConnect {
		return "", nil
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password))
	if p.User != "" && request.Header.Get("Proxy-Authorization") != want {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return "", nil
	}
	return request.Host, func() error {
		_, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
		return err
	}
}

// socks speaks as much of RFC 1928 and RFC 1929 as clients need.
func (p *Proxy) socks(conn net.Conn, reader *bufio.Reader) (string, func() error) {
	field := func() []byte { // a length of one byte, and so many bytes
		n, err := reader.ReadByte()
		data := make([]byte, n)
		if err == nil {
			_, _ = io.ReadFull(reader, data)
		}
		return data
	}
	_, _ = reader.ReadByte() // version
	field()                  // methods
	method := byte(0)
	if p.User != "" {
		method = 2
	}
	_, _ = conn.Write([]byte{5, method})
	if p.User != "" {
		_, _ = reader.ReadByte()
		user, password := field(), field()
		if string(user) != p.User || string(password) != p.Password {
			_, _ = conn.Write([]byte{1, 1})
			return "", nil
		}
		_, _ = conn.Write([]byte{1, 0})
	}
	header := make([]byte, 4)
	if _, err := io.ReadFull(reader, header); err != nil {
		return "", nil
	}
	var host string
	switch header[3] {
	case 1, 4:
		ip := make([]byte, map[byte]int{1: 4, 4: 16}[header[3]])
		_, _ = io.ReadFull(reader, ip)
		host = net.IP(ip).String()
	case 3:
		host = string(field())
	}
	port := make([]byte, 2)
	if _, err := io.ReadFull(reader, port); err != nil {
		return "", nil
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port)))), func() error {
		_, err := conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		return err
	}
}
