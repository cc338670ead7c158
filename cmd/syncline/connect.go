package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/seed0419d559/syncline/internal/certfile"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// connectFlags say how connections to other servers are encrypted, and who we are for them.
type connectFlags struct {
	plaintext, tls bool
	serverName     string
	files          certfile.Files
	tokenFile      string
	token          string // from the environment only
}

func (f *connectFlags) register(flags *pflag.FlagSet) {
	flags.BoolVar(&f.plaintext, "plaintext", false, "allow an unencrypted connection to another machine")
	flags.BoolVar(&f.tls, "tls", false, "encrypt the connection; the server's certificate is verified by the system's authorities")
	flags.StringVar(&f.files.CA, "tls-ca", "", "PEM `FILE` of the authorities that the server's certificate is verified by; encrypts, as --tls")
	flags.StringVar(&f.serverName, "tls-server-name", "", "`NAME` that the server's certificate has to be for; the host of its address when empty")
	flags.StringVar(&f.files.Certificate, "tls-cert", "", "PEM `FILE` of the certificate by which the server knows us; encrypts, as --tls")
	flags.StringVar(&f.files.Key, "tls-key", "", "PEM `FILE` of the certificate's private key")
	f.registerToken(flags)
}

// variableOnly marks a flag that is given by its variable only.
const variableOnly = "syncline_variable_only"

func (f *connectFlags) registerToken(flags *pflag.FlagSet) {
	flags.StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token by which the server knows us; or the token itself in SYNCLINE_TOKEN")
	flags.StringVar(&f.token, "token", "", "the token")
	hidden := flags.Lookup("token")
	hidden.Hidden = true
	hidden.Annotations = map[string][]string{variableOnly: nil}
}

// errTokenShown refuses a token where others can read it.
var errTokenShown = usageError{errors.New("a token on the command line can be read by everybody on this machine: put it into a file for --token-file, or into SYNCLINE_TOKEN")}

// refuseShown refuses flags that are given by their variable only.
func refuseShown(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(flag *pflag.Flag) {
		if _, only := flag.Annotations[variableOnly]; only {
			err = errTokenShown
		}
	})
	return err
}

// options are those of a client command, which encrypts if any of the flags is about that.
func (f *connectFlags) options() ([]rpc.DialOption, error) {
	return f.dialOptions(f.tls || f.serverName != "" || f.files != certfile.Files{}, f.files, slog.Default())
}

func (f *connectFlags) dialOptions(encrypted bool, files certfile.Files, log *slog.Logger) ([]rpc.DialOption, error) {
	options := []rpc.DialOption{rpc.WithPlaintext(f.plaintext)}
	if encrypted {
		source, err := certfile.Open(files, log)
		if err != nil {
			return nil, usageError{err}
		}
		options = append(options, rpc.WithTLS(source.Client(f.serverName)))
	}
	switch {
	case f.tokenFile != "" && f.token != "":
		return nil, usageError{errors.New("--token-file and SYNCLINE_TOKEN are both set: which token is meant?")}
	case f.tokenFile != "":
		token := certfile.TokenFile(f.tokenFile)
		if _, err := token(); err != nil {
			return nil, usageError{err}
		}
		options = append(options, rpc.WithToken(token))
	case f.token != "":
		if err := certfile.CheckToken(f.token); err != nil {
			return nil, usageError{errors.New("SYNCLINE_TOKEN is no token: " + err.Error())}
		}
		options = append(options, rpc.WithToken(func() (string, error) { return f.token, nil }))
	}
	return options, nil
}

// connectionOf reads the flags of a command that registered them, as far as it did.
func connectionOf(flags *pflag.FlagSet) connectFlags {
	text := func(name string) string {
		if flag := flags.Lookup(name); flag != nil {
			return flag.Value.String()
		}
		return ""
	}
	return connectFlags{
		plaintext: text("plaintext") == "true", tls: text("tls") == "true", serverName: text("tls-server-name"),
		files:     certfile.Files{Certificate: text("tls-cert"), Key: text("tls-key"), CA: text("tls-ca")},
		tokenFile: text("token-file"), token: text("token"),
	}
}
