package pgtest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/pgserver"
)

// Direction is one way through a proxied connection.
type Direction int

// The two directions.
const (
	ToServer Direction = iota
	ToClient
)

// unlimited stands for no cut ahead.
const unlimited = -1

// Proxy is a TCP proxy in front of one address that breaks connections on demand. Its own address stays the same, also
// while it refuses connections. All methods may be called at any time from any goroutine.
type Proxy struct {
	addr string
	hold net.Listener // keeps the port while connections are refused
	wait sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	target   string
	listener net.Listener // nil while connections are refused
	links    map[*link]struct{}
	flow     chan struct{} // closed while bytes may pass
	flowing  bool
	delay    time.Duration
	left     [2]int64 // bytes that may still pass before a cut, or unlimited
	passed   [2]int64
	accepted int
	cuts     int
}

// NewProxy starts a proxy in front of target, host:port, and closes it at the test's end.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	port, hold, err := pgserver.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		addr:   net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		hold:   hold,
		target: target,
		links:  map[*link]struct{}{},
		left:   [2]int64{unlimited, unlimited},
	}
	p.Resume()
	if err := p.Accept(); err != nil {
		t.Fatal(errors.Join(err, hold.Close()))
	}
	t.Cleanup(p.Close)
	return p
}

// Addr is where the proxy listens, host:port.
func (p *Proxy) Addr() string { return p.addr }

// URL is a connection URL with its host and port replaced by the proxy's.
func (p *Proxy) URL(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.addr
	return u.String()
}

// SetTarget changes where new connections go.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Cut resets all connections and returns how many there were. New ones are welcome.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut()
}

// cut needs mu.
func (p *Proxy) cut() int {
	n := len(p.links)
	for l := range p.links {
		l.reset()
	}
	p.cuts += n
	return n
}

// CutAfter resets the connection that carries the n-th byte from now on in a direction, just after that byte, once.
func (p *Proxy) CutAfter(d Direction, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left[d] = max(0, n)
}

// noCut takes back what CutAfter has set.
func (p *Proxy) noCut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = [2]int64{unlimited, unlimited}
}

// Stall holds all bytes back, in both directions. Connections stay open and new ones are accepted, but nothing is said
// on them until Resume: to the peers it is a network that went silent.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flowing {
		p.flow, p.flowing = make(chan struct{}), false
	}
}

// Resume ends a Stall. The bytes held back go on their way.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flowing || p.closed {
		return
	}
	if p.flow == nil {
		p.flow = make(chan struct{})
	}
	close(p.flow)
	p.flowing = true
}

// Delay holds every piece of data back for d, 0 for not at all.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Refuse refuses new connections until Accept, as if nobody listened. Open ones stay.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// Accept ends Refuse.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("proxy is closed")
	}
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("listen for proxy: %w", err)
	}
	p.listener = l
	p.wait.Go(func() { p.serve(l) })
	return nil
}

// Stats tell what a proxy has done so far.
type Stats struct {
	Open     int // connections now
	Accepted int
	Cuts     int // connections cut by Cut and CutAfter
	ToServer int64
	ToClient int64
}

// Stats counts.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{len(p.links), p.accepted, p.cuts, p.passed[ToServer], p.passed[ToClient]}
}

// Close ends everything and waits until it has ended. The proxy of NewProxy is closed by itself.
func (p *Proxy) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		if p.listener != nil {
			_ = p.listener.Close()
		}
		for l := range p.links {
			l.reset()
		}
		_ = p.hold.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
}
