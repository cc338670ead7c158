// Package certfile makes TLS configurations from PEM files. The files are read again when they change, so a certificate is renewed
// without a restart; while what stands in them cannot be used, what was read before is. The other side is always verified.
package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookAgain is how often files are looked at for changes.
const lookAgain = time.Second

// Files are the paths of PEM files; all may be empty.
type Files struct {
	// Certificate and Key are this side's own.
	Certificate, Key string
	// CA holds the authorities that the other side is verified by.
	CA string
}

// content is what the files hold.
type content struct {
	certificate *tls.Certificate // nil for none
	pool        *x509.CertPool   // nil for none
}

// Source gives what the files hold now.
type Source struct {
	files Files
	log   *slog.Logger

	mu      sync.Mutex
	current content
	stamps  [3]stamp
	looked  time.Time
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
}

// Open reads the files for the first time.
func Open(files Files, log *slog.Logger) (*Source, error) {
	if (files.Certificate == "") != (files.Key == "") {
		return nil, errors.New("a certificate and its key belong together: one of the two files is missing")
	}
	s := &Source{files: files, log: log}
	s.stamps = s.look()
	s.looked = time.Now()
	var err error
	s.current, err = files.read()
	return s, err
}

func (s *Source) paths() [3]string {
	return [3]string{s.files.Certificate, s.files.Key, s.files.CA}
}

func (s *Source) look() (stamps [3]stamp) {
	for i, path := range s.paths() {
		if info, err := os.Stat(path); path != "" && err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// now returns what the files hold.
func (s *Source) now() content {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) < lookAgain {
		return s.current
	}
	s.looked = time.Now()
	stamps := s.look()
	if stamps == s.stamps {
		return s.current
	}
	s.stamps = stamps
	fresh, err := s.files.read()
	if err != nil {
		s.log.Warn("changed certificate files cannot be used; what was read before stays in use", "error", err)
		return s.current
	}
	s.current = fresh
	s.log.Info("certificate files were read again", "certificate", s.files.Certificate, "ca", s.files.CA)
	return s.current
}

func (f Files) read() (c content, err error) {
	if f.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return c, fmt.Errorf("read certificate %s with key %s: %w", f.Certificate, f.Key, err)
		}
		c.certificate = &pair
	}
	if f.CA == "" {
		return c, nil
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return c, fmt.Errorf("read authorities: %w", err)
	}
	if c.pool, err = Pool(text); err != nil {
		return c, fmt.Errorf("read authorities from %s: %w", f.CA, err)
	}
	return c, nil
}

// Pool reads authorities in PEM.
func Pool(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("there is no certificate in PEM in it")
	}
	return pool, nil
}

// ClientAuth is what a server asks of its clients.
type ClientAuth int

const (
	// NoCertificate asks for none.
	NoCertificate ClientAuth = iota
	// IfGiven verifies a certificate that a client shows.
	IfGiven
	// Required refuses clients without one.
	Required
)

// Server returns the configuration of a server with the certificate of the files. Its clients' certificates are verified by the CA.
// protocols are those of the application, as in "h2".
func (s *Source) Server(auth ClientAuth, protocols ...string) *tls.Config {
	config := func() *tls.Config {
		now := s.now()
		c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, ClientCAs: now.pool}
		if now.certificate != nil {
			c.Certificates = []tls.Certificate{*now.certificate}
		}
		switch auth {
		case IfGiven:
			c.ClientAuth = tls.VerifyClientCertIfGiven
		case Required:
			c.ClientAuth = tls.RequireAndVerifyClientCert
		case NoCertificate:
		}
		return c
	}
	outer := config()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return config(), nil }
	return outer
}

// Client returns the configuration of a client: the server is verified by the CA, by the system's authorities when there is none,
// and by the name, the host of its address when it is empty.
func (s *Source) Client(serverName string) func() (*tls.Config, error) {
	return func() (*tls.Config, error) {
		now := s.now()
		c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: now.pool, ServerName: serverName}
		if now.certificate != nil {
			c.Certificates = []tls.Certificate{*now.certificate}
		}
		return c, nil
	}
}
