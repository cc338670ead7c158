package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"
)

// localListener takes the connections of this process to its own server. They pass through memory: nothing of them can be read or
// made by another process, so they are not encrypted.
type localListener struct{ *bufconn.Listener }

func newLocalListener() localListener { return localListener{bufconn.Listen(bufferBytes)} }

func (l localListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return localConn{conn}, nil
}

type localConn struct{ net.Conn }

// DialLocal connects to the server within its process. It is for WithDialer.
func (s *Server) DialLocal(ctx context.Context, _ string) (net.Conn, error) {
	return s.local.DialContext(ctx)
}

// localInfo is what is known of the other end of a local connection.
type localInfo struct{ credentials.CommonAuthInfo }

func (localInfo) AuthType() string { return "local" }

// IsLocal tells whether a call comes from the process of the server.
func IsLocal(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	_, local := p.AuthInfo.(localInfo)
	return local
}

// exceptLocal shakes hands with all but local connections.
type exceptLocal struct {
	credentials.TransportCredentials
}

func (c exceptLocal) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, local := conn.(localConn); local {
		return conn, localInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

func (c exceptLocal) Clone() credentials.TransportCredentials {
	return exceptLocal{c.TransportCredentials.Clone()}
}
