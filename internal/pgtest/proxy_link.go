package pgtest

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	proxyBuffer      = 64 << 10
	proxyDialTimeout = 10 * time.Second
)

// link is one proxied connection.
type link struct {
	done chan struct{} // closed by reset

	mu    sync.Mutex
	ended bool
	ends  []net.Conn
}

// reset ends both halves with a TCP reset, without waiting for bytes under way.
func (l *link) reset() { l.end(true) }

func (l *link) end(abrupt bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	close(l.done)
	for _, conn := range l.ends {
		closeConn(conn, abrupt)
	}
}

func closeConn(conn net.Conn, abrupt bool) {
	if tcp, ok := conn.(*net.TCPConn); ok && abrupt {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// add puts a connection under the link's care, or closes it if the link has ended.
func (l *link) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		closeConn(conn, true)
		return false
	}
	l.ends = append(l.ends, conn)
	return true
}

// serve accepts until its listener is closed.
func (p *Proxy) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.closed || p.listener != listener {
			p.mu.Unlock()
			closeConn(client, true)
			continue
		}
		l := &link{done: make(chan struct{}), ends: []net.Conn{client}}
		p.links[l] = struct{}{}
		p.accepted++
		p.wait.Go(func() { p.run(l, client) })
		p.mu.Unlock()
	}
}

// run carries one connection until it ends.
func (p *Proxy) run(l *link, client net.Conn) {
	defer func() {
		l.end(false)
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	if !p.pass(l, 0) {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), proxyDialTimeout)
	defer cancel()
	var dialer net.Dialer
	server, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		l.reset()
		return
	}
	if !l.add(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(l, ToServer, server, client) })
	both.Go(func() { p.pump(l, ToClient, client, server) })
	both.Wait()
}

// pump carries one direction. The end of one direction ends both, after the bytes before it: PostgreSQL and gRPC
// connections are never half open for long.
func (p *Proxy) pump(l *link, d Direction, to, from net.Conn) {
	buffer := make([]byte, proxyBuffer)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		delay := p.delay
		p.mu.Unlock()
		if n > 0 {
			if !p.pass(l, delay) {
				return
			}
			allowed, cut := p.take(d, n)
			if _, err := to.Write(buffer[:allowed]); err != nil {
				l.end(false)
				return
			}
			if cut {
				p.mu.Lock()
				p.cuts++
				p.mu.Unlock()
				l.reset()
				return
			}
		}
		if err != nil {
			l.end(false)
			return
		}
	}
}

// pass waits for the delay and until bytes may flow. It tells whether the link is still there.
func (p *Proxy) pass(l *link, delay time.Duration) bool {
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.done:
			return false
		}
	}
	for {
		p.mu.Lock()
		flow, flowing := p.flow, p.flowing
		p.mu.Unlock()
		if flowing {
			return true
		}
		select {
		case <-flow:
		case <-l.done:
			return false
		}
	}
}

// take tells how many of n bytes may pass in a direction, and whether the connection is to be cut then.
func (p *Proxy) take(d Direction, n int) (allowed int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left[d] != unlimited {
		if int64(n) >= p.left[d] {
			n, cut = int(p.left[d]), true
			p.left[d] = unlimited
		} else {
			p.left[d] -= int64(n)
		}
	}
	p.passed[d] += int64(n)
	return n, cut
}
