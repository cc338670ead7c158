package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// ErrAddress says that an address is not of the form HOST:PORT.
var ErrAddress = errors.New("invalid address")

// ErrPlaintext says that a connection to another machine would not be encrypted and nobody allowed that.
var ErrPlaintext = errors.New("unencrypted connection refused")

const (
	firstRetry     = 200 * time.Millisecond
	lastRetry      = 10 * time.Second
	retryFactor    = 1.6
	retryJitter    = 0.2
	connectTimeout = 10 * time.Second
	clientPing     = 10 * time.Second
)

// How many bytes a server may have on their way to us, in a stream and in all: 4 MiB in 100 ms make 40 MB/s. By default gRPC finds its
// windows by a ping for every message of a stream that is not busy, which costs both sides more than the message does.
const (
	streamWindow     = 4 << 20
	connectionWindow = 8 << 20
)

type dialSettings struct {
	plaintext bool
	tls       func() (*tls.Config, error)
	token     func() (string, error)
	proxied   bool
	flags     string // prefix of the flags that errors name
	server    string // whose --plaintext they name
	options   []grpc.DialOption
}

// DialOption changes how Dial connects.
type DialOption func(*dialSettings)

// WithPlaintext allows a connection without encryption to another machine. Connections on this machine need no leave.
func WithPlaintext(allowed bool) DialOption {
	return func(s *dialSettings) { s.plaintext = allowed }
}

// WithTLS encrypts the connection and verifies the server by the config, which is asked for whenever a connection is made: so
// certificates may be renewed meanwhile. nil stands for none.
func WithTLS(config func() (*tls.Config, error)) DialOption {
	return func(s *dialSettings) { s.tls = config }
}

// WithToken sends a token with each call; it is asked for then. An empty one is not sent.
func WithToken(token func() (string, error)) DialOption {
	return func(s *dialSettings) { s.token = token }
}

// WithProxy connects through a proxy. What is beyond it is another machine, whatever its address says.
func WithProxy(dial func(ctx context.Context, address string) (net.Conn, error)) DialOption {
	return func(s *dialSettings) {
		s.proxied = true
		s.options = append(s.options, grpc.WithContextDialer(dial))
	}
}

// WithFlags has errors name the flags of a connection that a server of the kind makes, such as "source-" of "syncline replica", instead of
// the caller's own.
func WithFlags(prefix, server string) DialOption {
	return func(s *dialSettings) { s.flags, s.server = prefix, " of "+server }
}

// WithDialer connects by a function, as tests do; encryption is then the function's affair.
func WithDialer(dial func(ctx context.Context, address string) (net.Conn, error)) DialOption {
	return func(s *dialSettings) {
		s.plaintext = true
		s.options = append(s.options, grpc.WithContextDialer(dial))
	}
}

// WithCompression has calls and their answers compressed: it takes time of both sides' processors, and pays on a slow network.
func WithCompression() DialOption {
	return WithDialOptions(grpc.WithDefaultCallOptions(grpc.UseCompressor(zstdName)))
}

// Compressed is a connection whose calls are compressed, as WithCompression has those of all that is dialled with it.
func Compressed(conn grpc.ClientConnInterface) grpc.ClientConnInterface { return compressed{conn} }

type compressed struct{ grpc.ClientConnInterface }

func (c compressed) Invoke(ctx context.Context, method string, request, answer any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(ctx, method, request, answer, append([]grpc.CallOption{grpc.UseCompressor(zstdName)}, opts...)...)
}

func (c compressed) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(ctx, desc, method, append([]grpc.CallOption{grpc.UseCompressor(zstdName)}, opts...)...)
}

// WithDialOptions adds options of gRPC itself.
func WithDialOptions(options ...grpc.DialOption) DialOption {
	return func(s *dialSettings) { s.options = append(s.options, options...) }
}

// Dial makes a client connection to HOST:PORT. It returns at once: the connection is made when it is first used, kept alive
// by pings, and made again with growing pauses when it breaks. ErrAddress and ErrPlaintext are its errors.
func Dial(address string, opts ...DialOption) (*grpc.ClientConn, error) {
	var s dialSettings
	for _, opt := range opts {
		opt(&s)
	}
	host, err := CheckAddress(address)
	if err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	switch {
	case s.tls != nil:
		transport = freshTLS{credentials.NewTLS(nil), s.tls}
	case !s.plaintext && (s.proxied || !IsLoopback(host)):
		return nil, fmt.Errorf("connect to %s: %w: rows would cross the network readable for anyone; encrypt it with --%stls or --%[3]stls-ca, or allow it with --plaintext (SYNCLINE_PLAINTEXT=true)%s if the network is trusted", address, ErrPlaintext, s.flags, s.server)
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithStreamInterceptor(limitFrames),
		grpc.WithReadBufferSize(bufferBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connectionWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPing, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: retryFactor, Jitter: retryJitter, MaxDelay: lastRetry},
			MinConnectTimeout: connectTimeout,
		}),
	}, s.options...)
	if s.token != nil {
		options = append(options, grpc.WithPerRPCCredentials(bearer(s.token)))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}

// LargeAnswer lets the answer of a call be up to MaxAnswerBytes, as an inventory of very many tables is.
func LargeAnswer() grpc.CallOption { return grpc.MaxCallRecvMsgSize(MaxAnswerBytes) }

// limitFrames gives streams their own limit; without streams gRPC's own default is MaxMessageBytes. An option of the call
// itself stands after it and wins (default call options would win too, so none sets a limit).
func limitFrames(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(ctx, desc, conn, method, append([]grpc.CallOption{grpc.MaxCallRecvMsgSize(MaxFrameBytes)}, opts...)...)
}

// CheckAddress returns the host of HOST:PORT, or ErrAddress.
func CheckAddress(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || strings.ContainsAny(host, "/@ ") {
		return "", fmt.Errorf("%w %q: expected HOST:PORT, as in 127.0.0.1:7400", ErrAddress, address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%w %q: the port must be a number from 1 to 65535", ErrAddress, address)
	}
	return host, nil
}

// IsLoopback tells whether a host is an address of this machine that no other can reach.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.SplitN(host, "%", 2)[0])
	return ip != nil && ip.IsLoopback()
}
