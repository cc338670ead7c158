// Package peer is what a user says of the way to another server: the token, TLS and the proxy, the same for whoever is to be read from and
// for whoever is pushed to. What is secret of it is stored apart, and stands in no text that this package makes.
package peer

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/certfile"
	"github.com/seed0419d559/syncline/internal/proxy"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// maxPEMBytes bounds each text of a ClientTLS.
const maxPEMBytes = 256 << 10

// Way is the way to a server. The zero value is that of the process's own flags.
type Way struct {
	Token string
	TLS   *accessv1.ClientTLS // nil for none
	Proxy string              // URL, with user and password
}

// secrets is what of a way is never given back, as stored.
type secrets struct {
	Token string `json:"token,omitempty"`
	Key   string `json:"key,omitempty"`   // of the client certificate
	Proxy string `json:"proxy,omitempty"` // with user and password
}

// Shown is a copy without what is secret.
func (w Way) Shown() Way {
	shown := Way{TLS: proto.CloneOf(w.TLS), Proxy: proxy.Redact(w.Proxy)}
	if shown.TLS != nil {
		shown.TLS.Key = ""
	}
	return shown
}

// Secrets is what Shown leaves out, in JSON; nil where that is nothing.
func (w Way) Secrets() ([]byte, error) {
	s := secrets{Token: w.Token, Key: w.TLS.GetKey()}
	if proxy.Redact(w.Proxy) != w.Proxy {
		s.Proxy = w.Proxy
	}
	if s == (secrets{}) {
		return nil, nil
	}
	return json.Marshal(s)
}

// WithSecrets puts stored secrets back; nil are none.
func (w Way) WithSecrets(text []byte) (Way, error) {
	if text == nil {
		return w, nil
	}
	var s secrets
	if err := json.Unmarshal(text, &s); err != nil {
		return w, errors.New("read stored credentials: they are not as they were stored") // the error might show them
	}
	w.Token = s.Token
	if s.Key != "" && w.TLS != nil {
		w.TLS = proto.CloneOf(w.TLS)
		w.TLS.Key = s.Key
	}
	if s.Proxy != "" {
		w.Proxy = s.Proxy
	}
	return w, nil
}

// Problem is a field that no connection can be made with: token, proxy, or tls. and one of its fields.
type Problem struct{ Field, Text string }

// Check finds what is wrong. Its texts do not show what is secret.
func (w Way) Check() (wrong []Problem) {
	if err := certfile.CheckToken(w.Token); err != nil {
		wrong = append(wrong, Problem{"token", err.Error()})
	}
	if _, p := clientTLS(w.TLS); p != nil {
		wrong = append(wrong, *p)
	}
	if w.Proxy != "" {
		if _, err := proxy.Parse(w.Proxy); err != nil {
			wrong = append(wrong, Problem{"proxy", err.Error()})
		}
	}
	return wrong
}

// Options connect by the way. They stand over what the process says. What Check finds is refused, as a field of spec.
func (w Way) Options() ([]rpc.DialOption, error) {
	for _, p := range w.Check() {
		return nil, rpc.Invalid("spec."+p.Field, "%s", p.Text)
	}
	var options []rpc.DialOption
	if w.Token != "" {
		options = append(options, rpc.WithToken(func() (string, error) { return w.Token, nil }))
	}
	if w.TLS != nil {
		config, _ := clientTLS(w.TLS)
		options = append(options, rpc.WithTLS(func() (*tls.Config, error) { return config.Clone(), nil }))
	}
	if w.Proxy != "" {
		p, err := proxy.Parse(w.Proxy)
		if err != nil {
			return nil, rpc.Invalid("spec.proxy", "%v", err)
		}
		options = append(options, rpc.WithProxy(p.Dial))
	}
	return options, nil
}

// clientTLS makes the configuration of a connection.
func clientTLS(t *accessv1.ClientTLS) (*tls.Config, *Problem) {
	wrong := func(field, format string, args ...any) *Problem {
		return &Problem{"tls." + field, fmt.Sprintf(format, args...)}
	}
	for _, one := range []struct{ field, text string }{{"ca", t.GetCa()}, {"server_name", t.GetServerName()}, {"certificate", t.GetCertificate()}, {"key", t.GetKey()}} {
		if len(one.text) > maxPEMBytes || strings.Contains(one.text, "\x00") {
			return nil, wrong(one.field, "it has more than %d bytes, or a zero byte", maxPEMBytes)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.GetServerName()}
	if t.GetCa() != "" {
		pool, err := certfile.Pool([]byte(t.GetCa()))
		if err != nil {
			return nil, wrong("ca", "%v", err)
		}
		config.RootCAs = pool
	}
	if (t.GetCertificate() == "") != (t.GetKey() == "") {
		return nil, wrong("certificate", "a certificate and its key belong together: one of the two is missing")
	}
	if t.GetCertificate() != "" {
		pair, err := tls.X509KeyPair([]byte(t.GetCertificate()), []byte(t.GetKey()))
		if err != nil {
			return nil, wrong("certificate", "%v", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
