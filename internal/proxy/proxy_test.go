package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed0419d559/syncline/internal/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo greets, and gives back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	listener := proxytest.Listen(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, "hello ")
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func parse(t *testing.T, text string) *Proxy {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func dial(t *testing.T, p *Proxy, address string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := p.Dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "world"); err != nil {
		return "", err
	}
	text := make([]byte, len("hello world"))
	_, err = io.ReadFull(conn, text)
	return string(text), err
}

// TestDial goes through a proxy of each kind, with and without a user, and looks at where names are looked up.
func TestDial(t *testing.T) {
	end := echo(t)
	_, port, _ := net.SplitHostPort(end)
	authority := httptest.NewUnstartedServer(http.NotFoundHandler())
	authority.StartTLS()
	defer authority.Close()
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate())
	certificate := authority.TLS.Certificates[0]
	encrypted := func() net.Listener {
		return tls.NewListener(proxytest.Listen(t), &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	}
	for _, user := range []string{"", "anna:s3cret%40x@"} {
		want := proxytest.Proxy{Elsewhere: end}
		if user != "" {
			want.User, want.Password = "anna", "s3cret@x"
		}
		one := func() *proxytest.Proxy {
			return &proxytest.Proxy{Elsewhere: want.Elsewhere, User: want.User, Password: want.Password}
		}
		plain, safe := proxytest.HTTP(t, proxytest.Listen(t), one()), proxytest.HTTP(t, encrypted(), one())
		socks := proxytest.SOCKS(t, proxytest.Listen(t), one())
		for _, test := range []struct {
			proxy          *proxytest.Proxy
			scheme, target string
			asked          string // "" for an address of this machine
		}{
			{plain, "http", "no-such-name.invalid:7400", "no-such-name.invalid:7400"},
			{safe, "https", "no-such-name.invalid:7400", "no-such-name.invalid:7400"},
			{socks, "socks5h", "no-such-name.invalid:7400", "no-such-name.invalid:7400"},
			{socks, "socks5", "localhost:" + port, ""},
		} {
			p := parse(t, test.scheme+"://"+user+test.proxy.Address)
			p.roots = roots
			text, err := dial(t, p, test.target)
			if err != nil || text != "hello world" {
				t.Errorf("%s, user %q: %q, %v", test.scheme, user, text, err)
			}
			asked := test.proxy.Asked()
			if last := asked[len(asked)-1]; test.asked != "" && last != test.asked || test.asked == "" && strings.Contains(last, "localhost") {
				t.Errorf("%s was asked for %s", test.scheme, last)
			}
			if user == "" {
				continue
			}
			wrong := parse(t, test.scheme+"://anna:wr0ng@"+test.proxy.Address)
			wrong.roots = roots
			if _, err := dial(t, wrong, test.target); err == nil || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), wrong.String()) {
				t.Errorf("%s with a wrong password: %v", test.scheme, err)
			}
			if !slices.Equal(asked, test.proxy.Asked()) {
				t.Errorf("%s connects without the password", test.scheme)
			}
		}
	}
	unknown := parse(t, "https://"+proxytest.HTTP(t, encrypted(), &proxytest.Proxy{}).Address)
	if _, err := dial(t, unknown, end); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a proxy that cannot be verified: %v", err)
	}
}

// TestOddProxies end in time, whatever a proxy answers.
func TestOddProxies(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing": "", "no HTTP": "hello\r\n\r\n", "refusal": "HTTP/1.1 403 Forbidden\r\n\r\n", "endless header": "HTTP/1.1 200 OK\r\nx: " + strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			listener := proxytest.Listen(t)
			defer listener.Close()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, answer)
				_, _ = io.Copy(io.Discard, conn) // until the client gives up
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if conn, err := parse(t, "http://"+listener.Addr().String()).Dial(ctx, "db:1"); err == nil {
				t.Error("connected", conn)
			}
			<-ended
		})
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"http://proxy:3128": "http://proxy:3128", "https://u:p@proxy": "https://proxy:443", "socks5h://[::1]:9": "socks5h://[::1]:9", "socks5://u@proxy/": "socks5://proxy:1080",
		"": "", "proxy:3128": "", "ftp://proxy": "", "http://": "", "http://u:s3cret@": "", "http://pro xy": "", "http://proxy/path": "", "http://proxy?x": "",
		"http://u:s3cret@proxy:port": "", "socks5://u:" + strings.Repeat("s3cret", 50) + "@proxy": "", "http://s3cret\x00@proxy": "",
	} {
		p, err := Parse(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q is %v, %v", text, p, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") || strings.Contains(Redact(text), "s3cret") {
			t.Errorf("%q: %v shows what is secret", text, err)
		}
	}
}
