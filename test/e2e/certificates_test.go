package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority issues certificates for a test.
type authority struct {
	t           testing.TB
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	ca          string // PEM file
	serial      int64
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := a.template(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	a.key = a.newKey()
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	a.ca = a.write(name+".ca", "CERTIFICATE", raw)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) template(name string) *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func (a *authority) write(name, kind string, raw []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// certificate is one with its key, as files and as it is used.
type certificate struct {
	file, key string
	pair      tls.Certificate
}

// issue makes a certificate that is good for servers and clients, for a DNS name and, with it, this machine's address.
func (a *authority) issue(name string, edit ...func(*x509.Certificate)) certificate {
	a.t.Helper()
	template := a.template(name)
	template.DNSNames = []string{name}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, e := range edit {
		e(template)
	}
	key := a.newKey()
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	c := certificate{file: a.write(name+".pem", "CERTIFICATE", raw), key: a.write(name+".key", "EC PRIVATE KEY", private)}
	if c.pair, err = tls.LoadX509KeyPair(c.file, c.key); err != nil {
		a.t.Fatal(err)
	}
	return c
}

// onThisMachine makes a certificate good for the loopback address.
func onThisMachine(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }

// expired makes a certificate that was good until yesterday.
func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) }

// trust is a client's configuration that believes the authority and shows a certificate, if there is one.
func (a *authority) trust(own ...certificate) func() (*tls.Config, error) {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	if len(own) > 0 { // shown even if the server asks for those of another authority
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own[0].pair, nil }
	}
	return func() (*tls.Config, error) { return config.Clone(), nil }
}
