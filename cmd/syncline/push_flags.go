package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/certfile"
	"github.com/seed0419d559/syncline/services/pusher"
)

// pushFlagNames are the flags that set what the API calls otherwise.
var pushFlagNames = map[string]string{ //nolint:gosec // they are names
	"name": "NAME", "spec.target": "--target", "spec.replication": "--replication", "spec.set": "--set", "spec.parameters": "--param", "spec.token": "--target-token-file",
	"spec.tls": "--target-tls", "spec.tls.ca": "--target-tls-ca", "spec.tls.server_name": "--target-tls-server-name", "spec.tls.certificate": "--target-tls-cert",
	"spec.tls.key": "--target-tls-key", "spec.proxy": "--target-proxy", "spec.description": "--description", "spec.retry_base": "--push-retry-base", "spec.retry_cap": "--push-retry-cap",
	"spec.options.include_tables": "--table",
}

// optionFlags are those of a replication that the target is asked to create it with.
var optionFlags = []string{"table", "exclude-table", "replace", "copy-workers", "compress", "retry-base", "retry-cap", "retry-limit", "source-timeout", "group-bytes", "group-time", "auto-resync", "auto-resync-limit"}

// pushFlags are the flags of a push's spec. Files are read here, and what is in them is sent: the primary's server may run elsewhere.
type pushFlags struct {
	spec                 pushv1.PushSpec
	token, tokenFile     string
	tls                  bool
	serverName           string
	files                certfile.Files
	retryBase, retryMost time.Duration
	options              replicationFlags
	initial              string
}

func (f *pushFlags) register(flags *pflag.FlagSet) {
	s := &f.spec
	flags.StringVar(&s.Target, "target", "", "HOST:PORT of the replica's server (needed)")
	flags.StringVar(&f.tokenFile, "target-token-file", "", "`FILE` with the token by which the replica knows this push, an operator's there, or the token itself in SYNCLINE_TARGET_TOKEN; the primary's own --token-file when not set")
	flags.StringVar(&f.token, "target-token", "", "the token")
	hidden := flags.Lookup("target-token")
	hidden.Hidden = true
	hidden.Annotations = map[string][]string{variableOnly: nil}
	flags.BoolVar(&f.tls, "target-tls", false, "encrypt the connection to the replica; its certificate is verified by the authorities of the primary's system")
	flags.StringVar(&f.files.CA, "target-tls-ca", "", "PEM `FILE` of the authorities that the replica's certificate is verified by; encrypts, as --target-tls")
	flags.StringVar(&f.serverName, "target-tls-server-name", "", "`NAME` that the replica's certificate has to be for; the host of its address when empty")
	flags.StringVar(&f.files.Certificate, "target-tls-cert", "", "PEM `FILE` of the certificate by which the replica knows this push; encrypts, as --target-tls")
	flags.StringVar(&f.files.Key, "target-tls-key", "", "PEM `FILE` of the certificate's private key")
	flags.StringVar(&s.Proxy, "target-proxy", "", "`URL` of a proxy to the replica: http://, https://, socks5:// or socks5h://[USER:PASSWORD@]HOST:PORT; a password is better given in SYNCLINE_TARGET_PROXY")
	flags.StringVar(&s.Description, "description", "", "what the push is for")
	flags.DurationVar(&f.retryBase, "push-retry-base", 0, fmt.Sprintf("pause before the first retry after a fault that passes; 0 for the default of %s", pusher.DefaultRetryBase))
	flags.DurationVar(&f.retryMost, "push-retry-cap", 0, fmt.Sprintf("longest pause between two attempts; 0 for the default of %s", pusher.DefaultRetryCap))
}

// registerOptions adds the flags by which the replication is created.
func (f *pushFlags) registerOptions(flags *pflag.FlagSet) {
	flags.StringVar(&f.spec.Replication, "replication", "", "name of the replication on the replica; the push's own when empty")
	flags.StringVar(&f.initial, "initial", "copy", "what is done with tables of the replica that hold rows: copy refuses or replaces them, incremental mends what differs")
	all := pflag.NewFlagSet("options", pflag.ContinueOnError)
	f.options.register(all)
	for _, name := range optionFlags {
		flags.AddFlag(all.Lookup(name))
	}
}

// registerForUpdate adds the flags of an update, none of which a variable sets by accident.
func (f *pushFlags) registerForUpdate(flags *pflag.FlagSet, etag *string) {
	own := pflag.NewFlagSet("update", pflag.ContinueOnError)
	f.register(own)
	own.StringVar(etag, "etag", "", "change it only if its etag is this one")
	own.Lookup("target").Usage = "HOST:PORT of the replica's server"
	own.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "target-token" && flag.Name != "target-proxy" {
			withoutVariable(flag)
		}
	})
	flags.AddFlagSet(own)
}

// finish returns what the flags say.
func (f *pushFlags) finish() (*pushv1.PushSpec, error) {
	spec := &f.spec
	spec.Token = f.token
	if f.tokenFile != "" {
		if f.token != "" {
			return nil, usageError{errors.New("--target-token-file and SYNCLINE_TARGET_TOKEN are both set: which token is meant?")}
		}
		token, err := certfile.TokenFile(f.tokenFile)()
		if err != nil {
			return nil, usageError{fmt.Errorf("--target-token-file: %w", err)}
		}
		spec.Token = token
	}
	if f.retryBase != 0 {
		spec.RetryBase = durationpb.New(f.retryBase)
	}
	if f.retryMost != 0 {
		spec.RetryCap = durationpb.New(f.retryMost)
	}
	if f.options.compression != "" {
		if err := f.options.finish(); err != nil {
			return nil, err
		}
		if err := setInitial(&f.options.spec, f.initial); err != nil {
			return nil, err
		}
		spec.Options = &f.options.spec
	}
	return spec, f.readTLS()
}

func (f *pushFlags) readTLS() error {
	if !f.tls && f.serverName == "" && f.files == (certfile.Files{}) {
		return nil
	}
	f.spec.Tls = &accessv1.ClientTLS{ServerName: f.serverName}
	for _, one := range []struct {
		flag, path string
		to         *string
	}{
		{"--target-tls-ca", f.files.CA, &f.spec.Tls.Ca},
		{"--target-tls-cert", f.files.Certificate, &f.spec.Tls.Certificate},
		{"--target-tls-key", f.files.Key, &f.spec.Tls.Key},
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

// changed are the fields of the spec that flags were given for.
func (f *pushFlags) changed(flags *pflag.FlagSet) *fieldmaskpb.FieldMask {
	mask := &fieldmaskpb.FieldMask{}
	for _, one := range []struct {
		field string
		flags []string
	}{
		{"description", []string{"description"}},
		{"proxy", []string{"target-proxy"}},
		{"retry_base", []string{"push-retry-base"}},
		{"retry_cap", []string{"push-retry-cap"}},
		{"target", []string{"target"}},
		{"tls", []string{"target-tls", "target-tls-ca", "target-tls-server-name", "target-tls-cert", "target-tls-key"}},
		{"token", []string{"target-token", "target-token-file"}},
	} {
		if slices.ContainsFunc(one.flags, flags.Changed) {
			mask.Paths = append(mask.Paths, one.field)
		}
	}
	return mask
}
