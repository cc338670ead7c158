package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
)

// TestPlaintextIsRefused keeps rows and tokens off networks where they could be read.
func TestPlaintextIsRefused(t *testing.T) {
	token := WithToken(func() (string, error) { return "x", nil })
	encrypted := WithTLS(func() (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS12}, nil })
	proxied := WithProxy(func(context.Context, string) (net.Conn, error) { return nil, errors.New("no proxy") })
	for name, test := range map[string]struct {
		address string
		options []DialOption
		refused bool
	}{
		"this machine":                     {"127.0.0.1:1", nil, false},
		"this machine by name":             {"localhost:1", []DialOption{token}, false},
		"another machine":                  {"db1:1", nil, true},
		"another machine with a token":     {"10.0.0.1:1", []DialOption{token}, true},
		"a name that begins with 127":      {"127.0.0.1.example:1", []DialOption{token}, true},
		"another machine, encrypted":       {"db1:1", []DialOption{token, encrypted}, false},
		"another machine, allowed":         {"db1:1", []DialOption{token, WithPlaintext(true)}, false},
		"the proxy's machine":              {"127.0.0.1:1", []DialOption{token, proxied}, true},
		"the proxy's machine, encrypted":   {"localhost:1", []DialOption{proxied, encrypted}, false},
		"beyond a proxy":                   {"db1:1", []DialOption{proxied}, true},
		"beyond a proxy, allowed in plain": {"db1:1", []DialOption{proxied, WithPlaintext(true)}, false},
	} {
		conn, err := Dial(test.address, test.options...)
		if errors.Is(err, ErrPlaintext) != test.refused || (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
		if conn != nil {
			conn.Close()
		}
	}
}
