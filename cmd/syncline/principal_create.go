package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/principals"
)

// principalFlags are the flags that set what the API calls otherwise.
var principalFlags = map[string]string{"name": "NAME", "role": "--role", "grants": "--set", "certificate": "--certificate"}

func newPrincipalCreateCommand() *cobra.Command {
	var f accessFlags
	var role, certificateFile, tokenTo string
	var sets []string
	in := &accessv1.CreatePrincipalRequest{}
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Make a principal, and its token",
		Long: `Makes a principal. Its token is printed, or written to a file, this once: only a hash of it is kept. With --certificate it has no token,
and shows itself by a client certificate that the server verifies (--tls-client-ca).`,
		Example: `  syncline principal create ada --role admin --postgres postgres://syncline@localhost/shop
  syncline principal create replica1 --role replicator --set '*' --token-to replica1.token
  syncline principal create shop7 --role replicator --set 'orders:org=7'
  syncline principal create replica2 --role replicator --set '*' --certificate dns:replica2.example`,
		Args: onePrincipal,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name, in.Role, in.Grants = args[0], principals.RoleProto(access.Role(role)), nil
			if in.GetRole() == accessv1.Role_ROLE_UNSPECIFIED {
				return usageError{fmt.Errorf("--role %q is unknown: it is reader, replicator, operator or admin", role)}
			}
			for _, set := range sets {
				grant, err := parseGrant(set)
				if err != nil {
					return usageError{err}
				}
				in.Grants = append(in.Grants, grant)
			}
			if err := certificateOf(in, certificateFile); err != nil {
				return usageError{err}
			}
			return createPrincipal(cmd, &f, in, tokenTo)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&role, "role", "", "reader, replicator, operator or admin (needed)")
	flags.StringArrayVar(&sets, "set", nil, "`SET` that a replicator may read, with parameters as in orders:org=7,region=eu; * for the whole database; may be repeated")
	flags.StringVar(&in.Certificate, "certificate", "", "`NAME` of the client certificate that it shows: sha256:HEX, dns:NAME, uri:URI, email:ADDRESS or cn:NAME")
	flags.StringVar(&certificateFile, "certificate-file", "", "PEM `FILE` of exactly that client certificate")
	flags.StringVar(&tokenTo, "token-to", "", "new `FILE` that the token is written to, readable for its owner, instead of being printed")
	return cmd
}

// parseGrant reads SET or SET:NAME=VALUE,NAME=VALUE.
func parseGrant(text string) (*accessv1.Grant, error) {
	set, list, found := strings.Cut(text, ":")
	grant := &accessv1.Grant{Set: set}
	if !found {
		return grant, nil
	}
	grant.Parameters = make(map[string]string)
	for one := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(one, "=")
		if _, twice := grant.Parameters[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("--set %s: expected SET:NAME=VALUE,NAME=VALUE, each name once", text)
		}
		grant.Parameters[name] = value
	}
	return grant, nil
}

// certificateOf binds a principal to the certificate in a file.
func certificateOf(in *accessv1.CreatePrincipalRequest, path string) error {
	if path == "" {
		return nil
	}
	if in.GetCertificate() != "" {
		return errors.New("--certificate and --certificate-file are both set")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--certificate-file: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("--certificate-file: there is no certificate in PEM in %s", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("--certificate-file %s: %w", path, err)
	}
	in.Certificate = access.CertificateNames(certificate)[0]
	return nil
}

func createPrincipal(cmd *cobra.Command, f *accessFlags, in *accessv1.CreatePrincipalRequest, tokenTo string) error {
	return f.run(cmd.Context(), func(ctx context.Context, calls accessCalls) error {
		file, err := newTokenFile(tokenTo)
		if err != nil {
			return err
		}
		answer, err := calls.CreatePrincipal(ctx, in)
		if err != nil {
			file.discard()
			return flagError(err, principalFlags)
		}
		if err := file.write(&answer.Token); err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if f.json {
			return printJSON(out, answer, true)
		}
		fmt.Fprintf(out, "principal %s is made, with the role %s\n", in.GetName(), roleName(answer.GetPrincipal().GetRole()))
		if answer.GetPrincipal().GetCertificate() != "" {
			fmt.Fprintf(out, "it shows itself by the client certificate %s\n", answer.GetPrincipal().GetCertificate())
			return nil
		}
		printToken(out, answer.GetToken(), tokenTo)
		return nil
	})
}

func newPrincipalRotateCommand() *cobra.Command {
	var f accessFlags
	var tokenTo string
	cmd := &cobra.Command{
		Use: "rotate NAME", Short: "Give a principal another token; the one before is refused from then on", Args: onePrincipal,
		Example: `  syncline principal rotate replica1 --token-to replica1.token`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), func(ctx context.Context, calls accessCalls) error {
				file, err := newTokenFile(tokenTo)
				if err != nil {
					return err
				}
				answer, err := calls.RotateToken(ctx, &accessv1.RotateTokenRequest{Name: args[0]})
				if err != nil {
					file.discard()
					return flagError(err, principalFlags)
				}
				if err := file.write(&answer.Token); err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				if f.json {
					return printJSON(out, answer, true)
				}
				fmt.Fprintf(out, "principal %s has another token; the one before is refused\n", args[0])
				printToken(out, answer.GetToken(), tokenTo)
				return nil
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&tokenTo, "token-to", "", "new `FILE` that the token is written to, readable for its owner, instead of being printed")
	return cmd
}

func printToken(out io.Writer, token, file string) {
	if file != "" {
		fmt.Fprintf(out, "its token is in %s\n", file)
		return
	}
	fmt.Fprintf(out, "its token, which is shown this once: %s\n", token)
}

// tokenFile is a file for a token, made before the token so that none is lost.
type tokenFile struct{ file *os.File }

func newTokenFile(path string) (tokenFile, error) {
	if path == "" {
		return tokenFile{}, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return tokenFile{}, usageError{fmt.Errorf("--token-to: %w", err)}
	}
	return tokenFile{file}, nil
}

func (f tokenFile) discard() {
	if f.file != nil {
		_ = f.file.Close()
		_ = os.Remove(f.file.Name()) // it is empty
	}
}

// write moves the token into the file, if there is one.
func (f tokenFile) write(token *string) error {
	if f.file == nil || *token == "" {
		f.discard()
		return nil
	}
	_, err := f.file.WriteString(*token + "\n")
	if err = errors.Join(err, f.file.Close()); err != nil {
		return fmt.Errorf("write token to %s: %w; the principal is made: give it another token with `syncline principal rotate`", f.file.Name(), err)
	}
	*token = ""
	return nil
}
