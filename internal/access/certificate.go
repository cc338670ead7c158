package access

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// The ways to name a certificate.
const (
	byFingerprint = "sha256"
	byDNS         = "dns"
	byURI         = "uri"
	byEmail       = "email"
	byCommonName  = "cn"
)

// CertificateNames returns the names that a certificate goes by, in the form in which principals are bound to one.
func CertificateNames(c *x509.Certificate) []string {
	sum := sha256.Sum256(c.Raw)
	names := []string{byFingerprint + ":" + hex.EncodeToString(sum[:])}
	for _, name := range c.DNSNames {
		names = append(names, byDNS+":"+strings.ToLower(name))
	}
	for _, uri := range c.URIs {
		names = append(names, byURI+":"+uri.String())
	}
	for _, address := range c.EmailAddresses {
		names = append(names, byEmail+":"+strings.ToLower(address))
	}
	if c.Subject.CommonName != "" {
		names = append(names, byCommonName+":"+c.Subject.CommonName)
	}
	return names
}

// ParseCertificateName returns a certificate's name in the form of CertificateNames.
func ParseCertificateName(text string) (string, error) {
	kind, name, _ := strings.Cut(text, ":")
	if name == "" || len(text) > maxIdentifying || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return "", fmt.Errorf("%.80q is no name of a certificate: it is sha256:HEX, dns:NAME, uri:URI, email:ADDRESS or cn:NAME", text)
	}
	switch kind {
	case byFingerprint: // as openssl prints it, too
		name = strings.ToLower(strings.ReplaceAll(name, ":", ""))
		if sum, err := hex.DecodeString(name); err != nil || len(sum) != sha256.Size {
			return "", fmt.Errorf("%.80q is no fingerprint: sha256: is followed by 64 hexadecimal digits", text)
		}
	case byDNS, byEmail:
		name = strings.ToLower(name)
	case byURI, byCommonName:
	default:
		return "", fmt.Errorf("%.80q is no name of a certificate: it is sha256:HEX, dns:NAME, uri:URI, email:ADDRESS or cn:NAME", text)
	}
	return kind + ":" + name, nil
}
