// Package proxy makes connections through a proxy: HTTP with CONNECT, plain or encrypted, or SOCKS 5. What a proxy is given as user
// and password appears in no text that this package makes. It says nothing about who may read what passes: that is the connection's own
// encryption.
package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

// The schemes of a proxy's URL.
const (
	schemeHTTP    = "http"
	schemeHTTPS   = "https"
	schemeSOCKS5  = "socks5"  // names are looked up here
	schemeSOCKS5H = "socks5h" // names are looked up at the proxy
)

// maxUser and maxPassword are SOCKS 5's limits.
const maxUser, maxPassword = 255, 255

// maxAnswerBytes bounds what a proxy answers to CONNECT.
const maxAnswerBytes = 64 << 10

// Proxy is a proxy with its address and credential.
type Proxy struct {
	scheme, host   string // host is HOST:PORT
	user, password string
	roots          *x509.CertPool // of an encrypted proxy; nil for the system's
}

var defaultPorts = map[string]string{schemeHTTP: "80", schemeHTTPS: "443", schemeSOCKS5: "1080", schemeSOCKS5H: "1080"}

// Parse reads the URL of a proxy. Its errors do not show what stands in it.
func Parse(text string) (*Proxy, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it is not a URL, as http://HOST:PORT or socks5h://USER:PASSWORD@HOST:PORT")
	}
	port, known := defaultPorts[u.Scheme]
	switch {
	case !known:
		return nil, errors.New("a proxy's URL begins with http://, https://, socks5:// or socks5h://")
	case u.Hostname() == "" || strings.ContainsAny(u.Hostname(), " \r\n"):
		return nil, errors.New("the URL names no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("a proxy's URL ends with its port")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	p := &Proxy{scheme: u.Scheme, host: net.JoinHostPort(u.Hostname(), port), user: u.User.Username()}
	p.password, _ = u.User.Password()
	if strings.HasPrefix(p.scheme, schemeSOCKS5) && (len(p.user) > maxUser || len(p.password) > maxPassword) {
		return nil, fmt.Errorf("user and password of a SOCKS proxy have up to %d bytes", maxUser)
	}
	return p, nil
}

// String is the proxy's URL without user and password.
func (p *Proxy) String() string { return p.scheme + "://" + p.host }

// Redact returns the URL of a proxy without user and password; what is no such URL is not shown at all.
func Redact(text string) string {
	if text == "" {
		return ""
	}
	p, err := Parse(text)
	if err != nil {
		return "xxxxx"
	}
	return p.String()
}

// Dial connects to HOST:PORT through the proxy.
func (p *Proxy) Dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := p.dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s through the proxy %s: %w", address, p, err)
	}
	return conn, nil
}

func (p *Proxy) dial(ctx context.Context, address string) (net.Conn, error) {
	switch p.scheme {
	case schemeSOCKS5, schemeSOCKS5H:
		return p.socks(ctx, address)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", p.host)
	if err != nil {
		return nil, err
	}
	if p.scheme == schemeHTTPS {
		host, _, _ := net.SplitHostPort(p.host)
		encrypted := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: p.roots})
		if err := encrypted.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		conn = encrypted
	}
	through, err := p.connect(ctx, conn, address)
	if err != nil {
		_ = conn.Close()
	}
	return through, err
}

func (p *Proxy) socks(ctx context.Context, address string) (net.Conn, error) {
	if p.scheme == schemeSOCKS5 {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		address = net.JoinHostPort(found[0], port)
	}
	var auth *proxy.Auth
	if p.user != "" {
		auth = &proxy.Auth{User: p.user, Password: p.password}
	}
	dialer, err := proxy.SOCKS5("tcp", p.host, auth, &net.Dialer{})
	if err != nil {
		return nil, err
	}
	withContext, ok := dialer.(proxy.ContextDialer)
	if !ok {
		return nil, errors.New("the SOCKS client takes no context")
	}
	return withContext.DialContext(ctx, "tcp", address)
}

// connect has an HTTP proxy connect to an address.
func (p *Proxy) connect(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends what is under way
	var request strings.Builder
	fmt.Fprintf(&request, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", address, address)
	if p.user != "" {
		fmt.Fprintf(&request, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password)))
	}
	request.WriteString("\r\n")
	_, err := io.WriteString(conn, request.String())
	var reader *bufio.Reader
	if err == nil {
		reader = bufio.NewReader(io.LimitReader(conn, maxAnswerBytes))
		err = readAnswer(reader)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return &leftover{Conn: conn, reader: reader}, nil
}

func readAnswer(reader *bufio.Reader) error {
	answer, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	_ = answer.Body.Close() // CONNECT has none
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}

// leftover gives what came together with the proxy's answer before what comes after it.
type leftover struct {
	net.Conn
	reader *bufio.Reader // nil once it is empty
}

func (l *leftover) Read(data []byte) (int, error) {
	if l.reader != nil {
		if n := l.reader.Buffered(); n > 0 {
			return l.reader.Read(data[:min(len(data), n)])
		}
		l.reader = nil
	}
	return l.Conn.Read(data)
}
