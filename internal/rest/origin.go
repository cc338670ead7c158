package rest

import (
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// sameSite refuses what a web page of somebody else has a browser do. On a loopback address that includes pages whose own name was
// made to lead here: their requests name a host that is not this machine.
func (h *Handler) sameSite(r *http.Request) error {
	judged := r
	if strings.HasPrefix(r.URL.Path, pathMethods) {
		// A read that nobody sees the answer of does harm too: streams hold places, and a follower takes the place of one of its name.
		judged = r.WithContext(r.Context())
		judged.Method = http.MethodPost
	}
	if err := h.crossSite.Check(judged); err != nil {
		return rpc.Errorf(codes.PermissionDenied, reasonCrossOrigin, "a page of another origin may not do this: %w", err)
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() || r.Host == "" { // a browser always names a host
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if net.ParseIP(strings.SplitN(host, "%", 2)[0]) != nil || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil
	}
	return rpc.Errorf(codes.PermissionDenied, reasonUnknownHost, "this server listens on this machine only, and is not %q: ask for localhost or the address; a proxy has to pass on one of these as Host", r.Host)
}
