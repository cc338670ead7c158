package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/pflag"

	"github.com/seed0419d559/syncline/internal/certfile"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// The values of --auth.
const (
	authAuto = "auto"
	authOn   = "on"
	authOff  = "off"
)

// protectFlags say how a server protects itself.
type protectFlags struct {
	connect  connectFlags // to other servers; its certificate is this server's own
	clientCA string
	auth     string
}

func (f *protectFlags) register(flags *pflag.FlagSet) {
	c := &f.connect
	flags.StringVar(&f.auth, "auth", authAuto, "whether every call needs a principal: on, off, or auto: on unless only this machine reaches the server")
	flags.StringVar(&c.files.Certificate, "tls-cert", "", "PEM `FILE` of this server's certificate, for gRPC, HTTP, and as client of other servers; read again when it changes")
	flags.StringVar(&c.files.Key, "tls-key", "", "PEM `FILE` of the certificate's private key")
	flags.StringVar(&f.clientCA, "tls-client-ca", "", "PEM `FILE` of the authorities that clients' certificates are verified by; with --auth off every client needs one")
	flags.BoolVar(&c.plaintext, "plaintext", false, "allow unencrypted connections to and from other machines")
	flags.BoolVar(&c.tls, "tls", false, "encrypt connections to other servers; their certificates are verified by the system's authorities")
	flags.StringVar(&c.files.CA, "tls-ca", "", "PEM `FILE` of the authorities that other servers' certificates are verified by; encrypts, as --tls")
	flags.StringVar(&c.serverName, "tls-server-name", "", "`NAME` that other servers' certificates have to be for; the hosts of their addresses when empty")
	c.registerToken(flags)
	flags.Lookup("token-file").Usage = "`FILE` with the token by which other servers know us; or the token itself in SYNCLINE_TOKEN"
}

// check refuses flags that do not fit together.
func (f *protectFlags) check() error {
	switch f.auth {
	case authAuto, authOn, authOff:
	default:
		return usageError{fmt.Errorf("--auth %q is unknown: use on, off or auto", f.auth)}
	}
	if f.clientCA != "" && f.connect.files.Certificate == "" {
		return usageError{errors.New("--tls-client-ca needs --tls-cert and --tls-key: clients show a certificate on encrypted connections only")}
	}
	return nil
}

// required tells whether calls need a principal, for a server that listens on these addresses.
func (f *protectFlags) required(addresses ...string) bool {
	switch f.auth {
	case authOn:
		return true
	case authOff:
		return false
	}
	for _, address := range addresses {
		if !onlyHere(address) {
			return true
		}
	}
	return false
}

// onlyHere tells whether an address to listen on is reached from this machine only.
func onlyHere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return address == "" || err == nil && rpc.IsLoopback(host)
}

// encrypted refuses to listen for other machines without encryption, unless that is allowed.
func (f *protectFlags) encrypted(flag, address string) error {
	if f.connect.files.Certificate != "" || f.connect.plaintext || onlyHere(address) {
		return nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil //nolint:nilerr // nothing can listen there, which is another error
	}
	return usageError{fmt.Errorf("%s %s is reached by other machines, and what they send and get would be readable for anyone on the way: give the server a certificate with --tls-cert and --tls-key, or allow it with --plaintext (SYNCLINE_PLAINTEXT=true) if the network is trusted", flag, address)}
}

// serverTLS returns the configurations of the gRPC and the HTTP listener; nil without a certificate.
func (f *protectFlags) serverTLS(required bool, log *slog.Logger) (forGRPC, forHTTP *tls.Config, err error) {
	if f.connect.files.Certificate == "" && f.connect.files.Key == "" {
		return nil, nil, nil
	}
	source, err := certfile.Open(certfile.Files{Certificate: f.connect.files.Certificate, Key: f.connect.files.Key, CA: f.clientCA}, log)
	if err != nil {
		return nil, nil, usageError{err}
	}
	asks := certfile.NoCertificate
	switch {
	case f.clientCA != "" && required:
		asks = certfile.IfGiven // a token does as well
	case f.clientCA != "":
		asks = certfile.Required
	}
	return source.Server(asks, "h2"), source.Server(asks, "http/1.1"), nil
}

// dialOptions are those for connections to other servers. They are encrypted if that is asked for, for a server may be encrypted
// while its source on the same machine is not.
func (f *protectFlags) dialOptions(log *slog.Logger) ([]rpc.DialOption, error) {
	return f.connect.dialOptions(f.connect.tls || f.connect.files.CA != "" || f.connect.serverName != "", f.connect.files, log)
}

// registerGateway adds the flags of a gateway, which is reached by HTTP and asks one server.
func (f *protectFlags) registerGateway(flags *pflag.FlagSet) {
	f.connect.register(flags)
	f.auth = authOff // its server decides
	flags.Lookup("plaintext").Usage = "allow unencrypted connections to and from other machines"
	flags.Lookup("tls-cert").Usage = "PEM `FILE` of the certificate that the gateway shows to those who ask it"
	flags.Lookup("token-file").Usage = "`FILE` with the token by which the gateway asks what the server serves; requests are passed on with their own only"
}

// gatewayOptions are those by which a gateway asks its server, and those by which it passes requests on: without a credential.
func (f *protectFlags) gatewayOptions(log *slog.Logger) (asking, passing []rpc.DialOption, err error) {
	encrypted := f.connect.tls || f.connect.files.CA != "" || f.connect.serverName != ""
	files := certfile.Files{CA: f.connect.files.CA}
	if asking, err = f.connect.dialOptions(encrypted, files, log); err != nil {
		return nil, nil, err
	}
	bare := f.connect
	bare.token, bare.tokenFile = "", ""
	passing, err = bare.dialOptions(encrypted, files, log)
	return asking, passing, err
}
