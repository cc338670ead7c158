package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
)

// authorization is the key of the metadata that holds a token.
const authorization = "authorization"

const bearerScheme = "Bearer"

// Bearer is the value of an Authorization header with a token.
func Bearer(token string) string { return bearerScheme + " " + token }

// ParseBearer returns the token of the value of an Authorization header.
func ParseBearer(value string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(value, " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, bearerScheme) && token != ""
}

// bearer sends a token with each call. Dial refuses a connection over which it could be read, so nothing else has to.
type bearer func() (string, error)

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b()
	if err != nil || token == "" {
		return nil, err
	}
	return map[string]string{authorization: Bearer(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// freshTLS makes each connection by the configuration of that moment.
type freshTLS struct {
	credentials.TransportCredentials
	config func() (*tls.Config, error)
}

func (f freshTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	if config.ServerName != "" {
		authority = config.ServerName // gRPC itself would verify the host of the address
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

func (f freshTLS) Clone() credentials.TransportCredentials {
	return freshTLS{f.TransportCredentials.Clone(), f.config}
}

// HandshakeProblem says in words what may be wrong when a connection fails because one side encrypts and the other does not, or a
// certificate is refused; "" for any other error. The flags that it names begin with prefix: "source-" for those of a replication's
// source, "" for those of the caller itself.
func HandshakeProblem(err error, prefix string) string {
	if Code(err) != codes.Unavailable || Reason(err) != "" {
		return ""
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return fmt.Sprintf("the server does not encrypt: leave out --%stls and --%[1]stls-ca (and allow it with --plaintext), or start it with --tls-cert", prefix)
	case strings.Contains(text, "certificate signed by unknown authority"):
		return fmt.Sprintf("the server's certificate is of no authority that is trusted here: name its authority with --%stls-ca", prefix)
	case strings.Contains(text, "x509: certificate is valid for"), strings.Contains(text, "x509: certificate is not valid for any names"):
		return fmt.Sprintf("the server's certificate is for another name: reach it by that name, or say with --%stls-server-name which it has to be for", prefix)
	case strings.Contains(text, "certificate required"), strings.Contains(text, "bad certificate"):
		return fmt.Sprintf("the server wants a client certificate that it can verify: give one with --%stls-cert and --%[1]stls-key", prefix)
	case strings.Contains(text, "certificate has expired"), strings.Contains(text, "expired certificate"):
		return "a certificate is not valid at this time: renew it, or set the clock"
	}
	return ""
}

// EncryptionHint is added to what is said of a server that does not answer as one: many things do not, and one that expects an encrypted
// connection is among them. The prefix is that of HandshakeProblem.
func EncryptionHint(err error, prefix string) string {
	if strings.Contains(err.Error(), "error reading server preface") {
		return fmt.Sprintf(" If it expects an encrypted connection, use --%stls or --%[1]stls-ca.", prefix)
	}
	return ""
}
