package certfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issue writes a certificate that is its own authority, and its key.
func issue(t *testing.T, dir, name string) Files {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"server"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := Files{Certificate: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "cert")}
	for path, block := range map[string]*pem.Block{f.Certificate: {Type: "CERTIFICATE", Bytes: raw}, f.Key: {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func open(t *testing.T, files Files, log io.Writer) *Source {
	t.Helper()
	s, err := Open(files, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shake connects a client to a server and returns the name on the server's certificate.
func shake(t *testing.T, server, client *tls.Config) (string, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		there, err := listener.Accept()
		if err != nil {
			return
		}
		defer there.Close()
		_ = there.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = tls.Server(there, server).Write([]byte("x"))
	}()
	here, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	_ = here.SetDeadline(time.Now().Add(30 * time.Second))
	conn := tls.Client(here, client)
	if _, err := conn.Read(make([]byte, 1)); err != nil { // TLS 1.3 tells a client after its handshake that it is refused
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// TestRenewal reads files again when they change, and keeps what was there while they cannot be used.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	files := issue(t, dir, "one")
	var log bytes.Buffer
	s := open(t, files, &log)
	config := s.Server(NoCertificate, "h2")
	trusting := func() *tls.Config {
		c, err := open(t, Files{CA: files.CA}, io.Discard).Client("server")()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := trusting()
	if name, err := shake(t, config, first); err != nil || name != "one" {
		t.Fatalf("%s, %v", name, err)
	}
	later := func() { // as if the time had passed after which files are looked at again
		s.mu.Lock()
		defer s.mu.Unlock()
		s.looked = time.Time{}
	}
	if err := os.WriteFile(files.Key, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	later()
	if name, err := shake(t, config, first); err != nil || name != "one" || !strings.Contains(log.String(), "stays in use") {
		t.Errorf("with a broken file: %s, %v, log %s", name, err, &log)
	}
	issue(t, dir, "two")
	later()
	if name, err := shake(t, config, trusting()); err != nil || name != "two" {
		t.Errorf("renewed: %s, %v", name, err)
	}
	if _, err := shake(t, config, first); err == nil {
		t.Error("a client that trusts the former certificate takes the new one")
	}
}

// TestClientCertificates asks for none, takes those that verify, or demands one.
func TestClientCertificates(t *testing.T) {
	ours, theirs := issue(t, t.TempDir(), "ours"), issue(t, t.TempDir(), "theirs")
	s := open(t, ours, io.Discard)
	for _, test := range []struct {
		auth  ClientAuth
		shown Files // the certificate
		good  bool
	}{
		{NoCertificate, Files{}, true}, {IfGiven, Files{}, true}, {IfGiven, ours, true}, {IfGiven, theirs, false}, {Required, ours, true}, {Required, theirs, false}, {Required, Files{}, false},
	} {
		client, err := open(t, Files{Certificate: test.shown.Certificate, Key: test.shown.Key, CA: ours.CA}, io.Discard).Client("server")()
		if err != nil {
			t.Fatal(err)
		}
		if len(client.Certificates) > 0 { // also to a server that did not ask for one of this authority
			own := client.Certificates[0]
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		}
		if _, err := shake(t, s.Server(test.auth, "h2"), client); (err == nil) != test.good {
			t.Errorf("%+v: %v", test, err)
		}
		old := client.Clone()
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if _, err := shake(t, s.Server(test.auth, "h2"), old); err == nil {
			t.Errorf("%+v: TLS 1.1 is taken", test)
		}
		client.ServerName = "other"
		if _, err := shake(t, s.Server(test.auth, "h2"), client); err == nil {
			t.Errorf("%+v: the certificate of another name is taken", test)
		}
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	token := TokenFile(path)
	if _, err := token(); err == nil {
		t.Error("a token of no file")
	}
	for text, want := range map[string]string{"one\n": "one", "  two": "two", "": "", "\n": "", "a b": "", "a\nb": "", "ä": "", strings.Repeat("x", 5000): ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := TokenFile(path)()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
		if err != nil && text != "" && len(strings.TrimSpace(text)) > 3 && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}
