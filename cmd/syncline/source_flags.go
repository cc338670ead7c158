package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/certfile"
)

// sourceFlags say how a replication reaches its source, and who it is there. The files are read here, and what is in them is sent: the
// replica's server may run elsewhere.
type sourceFlags struct {
	token, tokenFile, proxy string
	tls                     bool
	serverName              string
	files                   certfile.Files
}

func (f *sourceFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.tokenFile, "source-token-file", "", "`FILE` with the token by which the source knows this replication, or the token itself in SYNCLINE_SOURCE_TOKEN; the replica's own --token-file when not set")
	flags.StringVar(&f.token, "source-token", "", "the token")
	hidden := flags.Lookup("source-token")
	hidden.Hidden = true
	hidden.Annotations = map[string][]string{variableOnly: nil}
	flags.BoolVar(&f.tls, "source-tls", false, "encrypt the connections to the source; its certificate is verified by the authorities of the replica's system")
	flags.StringVar(&f.files.CA, "source-tls-ca", "", "PEM `FILE` of the authorities that the source's certificate is verified by; encrypts, as --source-tls")
	flags.StringVar(&f.serverName, "source-tls-server-name", "", "`NAME` that the source's certificate has to be for; the host of its address when empty")
	flags.StringVar(&f.files.Certificate, "source-tls-cert", "", "PEM `FILE` of the certificate by which the source knows this replication; encrypts, as --source-tls")
	flags.StringVar(&f.files.Key, "source-tls-key", "", "PEM `FILE` of the certificate's private key")
	flags.StringVar(&f.proxy, "source-proxy", "", "`URL` of a proxy to the source: http://, https://, socks5:// or socks5h://[USER:PASSWORD@]HOST:PORT; a password is better given in SYNCLINE_SOURCE_PROXY")
}

// set puts what the flags say into a replication's options.
func (f *sourceFlags) set(spec *applierv1.ReplicationSpec) error {
	spec.Proxy, spec.Token = f.proxy, f.token
	if f.tokenFile != "" {
		if f.token != "" {
			return usageError{errors.New("--source-token-file and SYNCLINE_SOURCE_TOKEN are both set: which token is meant?")}
		}
		token, err := certfile.TokenFile(f.tokenFile)()
		if err != nil {
			return usageError{fmt.Errorf("--source-token-file: %w", err)}
		}
		spec.Token = token
	}
	if !f.tls && f.serverName == "" && f.files == (certfile.Files{}) {
		return nil
	}
	spec.Tls = &accessv1.ClientTLS{ServerName: f.serverName}
	for _, one := range []struct {
		flag, path string
		to         *string
	}{
		{"--source-tls-ca", f.files.CA, &spec.Tls.Ca},
		{"--source-tls-cert", f.files.Certificate, &spec.Tls.Certificate},
		{"--source-tls-key", f.files.Key, &spec.Tls.Key},
	} {
		if one.path == "" {
			continue
		}
		text, err := os.ReadFile(one.path)
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", one.flag, err)}
		}
		*one.to = string(text)
	}
	return nil
}
