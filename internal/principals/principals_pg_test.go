package principals

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const getServer = "/syncline.server.v1.ServerService/GetServer"

// open makes a registry on a database that is prepared for both roles, as a node's with both is.
func open(t *testing.T, url string) *Registry {
	t.Helper()
	r, err := New(Config{PostgresURL: url, Required: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.pool.Close)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func prepared(t *testing.T) string {
	t.Helper()
	url := pgtest.Shared(t).Database(t)
	for _, role := range []node.Role{node.Primary, node.Replica, node.Primary} {
		if _, err := node.Prepare(t.Context(), url, role); err != nil {
			t.Fatal(err)
		}
	}
	return url
}

func admit(r *Registry, token string) (context.Context, error) {
	ctx := context.Background()
	if token != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", rpc.Bearer(token)))
	}
	return r.Admit(ctx, getServer)
}

func create(t *testing.T, s *Service, name string, role access.Role, certificate string) string {
	t.Helper()
	made, err := s.CreatePrincipal(t.Context(), &accessv1.CreatePrincipalRequest{Name: name, Role: RoleProto(role), Certificate: certificate})
	if err != nil {
		t.Fatal(err)
	}
	return made.GetToken()
}

// TestFirstPrincipal is made in the database beside a server that runs, and is used at once.
func TestFirstPrincipal(t *testing.T) {
	url := prepared(t)
	one, other := open(t, url), open(t, url) // nothing runs that would have the other one look by itself
	token := create(t, one.Service(), "ada", access.Admin, "")
	pgtest.Eventually(t, time.Minute, func() error {
		_, err := admit(other, token)
		return err
	})
	for range 2 * int(time.Second/againAfter) {
		if _, err := admit(other, "wrong"); rpc.Reason(err) != ReasonCredential {
			t.Fatalf("a wrong token: %v", err)
		}
	}
	other.reloading.Lock() // as one that waits for the database holds it
	defer other.reloading.Unlock()
	if _, err := admit(other, "wrong"); rpc.Reason(err) != ReasonCredential {
		t.Errorf("while somebody else looks: %v", err)
	}
}

// TestTwoProcesses of a node know what the other one changed.
func TestTwoProcesses(t *testing.T) {
	url := prepared(t)
	one, other := open(t, url), open(t, url)
	if _, err := admit(other, "x"); rpc.Reason(err) != ReasonNoPrincipals {
		t.Errorf("nobody is there: %v", err)
	}
	if ctx, err := admit(other, other.token); err != nil || other.Revoked(ctx) != nil {
		t.Errorf("the process itself: %v", err)
	}
	if _, err := admit(one, other.token); err == nil {
		t.Error("another process passes for this one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- other.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	token := create(t, one.Service(), "ada", access.Admin, "")
	if _, err := admit(one, token); err != nil {
		t.Errorf("at once: %v", err)
	}
	pgtest.Eventually(t, time.Minute, func() error {
		_, err := admit(other, token)
		return err
	})
	called, err := admit(other, token)
	if err != nil {
		t.Fatal(err)
	}
	create(t, one.Service(), "ruth", access.Reader, "cn:ruth") // others keep their streams
	pgtest.Eventually(t, time.Minute, func() error {
		if known, _ := other.byCertificate([]string{"dns:x", "cn:ruth"}); known == nil {
			return errors.New("ruth is not known yet")
		}
		return nil
	})
	select {
	case <-other.Revoked(called):
		t.Error("a change of somebody else ends the streams of ada")
	default:
	}
	rotated, err := one.Service().RotateToken(t.Context(), &accessv1.RotateTokenRequest{Name: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-other.Revoked(called):
	case <-time.After(time.Minute):
		t.Error("streams outlive their token")
	}
	if _, err := admit(other, token); rpc.Code(err) != codes.Unauthenticated {
		t.Errorf("the token before counts: %v", err)
	}
	if _, err := admit(other, rotated.GetToken()); err != nil {
		t.Error(err)
	}
}

// TestAmbiguousCertificate takes a certificate that is two principals for none of them.
func TestAmbiguousCertificate(t *testing.T) {
	r := open(t, prepared(t))
	create(t, r.Service(), "one", access.Reader, "dns:one")
	create(t, r.Service(), "two", access.Admin, "cn:two")
	for _, test := range []struct {
		names   []string
		want    string
		several bool
	}{
		{[]string{"dns:one", "cn:x"}, "one", false}, {[]string{"dns:x", "cn:two"}, "two", false}, {[]string{"dns:one", "cn:two"}, "", true}, {[]string{"cn:one"}, "", false}, {nil, "", false},
	} {
		found, several := r.byCertificate(test.names)
		if several != test.several || (found == nil) != (test.want == "") || found != nil && found.principal.Name != test.want {
			t.Errorf("%v: %v %v", test.names, found, several)
		}
	}
	if _, err := r.Service().CreatePrincipal(t.Context(), &accessv1.CreatePrincipalRequest{Name: "three", Role: accessv1.Role_ROLE_ADMIN, Certificate: "dns:ONE"}); !errors.Is(err, ErrExists) {
		t.Errorf("two principals of one certificate: %v", err)
	}
}

// TestAnAdminStays though the two that there are are deleted at the same time: the second waits for the first, and finds itself alone.
func TestAnAdminStays(t *testing.T) {
	url := prepared(t)
	r := open(t, url)
	create(t, r.Service(), "ada", access.Admin, "")
	create(t, r.Service(), "bob", access.Admin, "")
	first, watcher := pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, first, "BEGIN")
	pgtest.Exec(t, first, "DELETE FROM syncline.principals WHERE name = 'ada'")
	second := make(chan error, 1)
	go func() {
		_, err := r.Service().DeletePrincipal(context.WithoutCancel(t.Context()), &accessv1.DeletePrincipalRequest{Name: "bob"})
		second <- err
	}()
	pgtest.Eventually(t, time.Minute, func() error {
		if len(second) > 0 || pgtest.QueryRow[int](t, watcher, "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND relation = 'syncline.principals'::regclass") > 0 {
			return nil
		}
		return errors.New("the second neither waits nor has ended")
	})
	pgtest.Exec(t, first, "COMMIT")
	if err := <-second; !errors.Is(err, ErrLastAdmin) {
		t.Errorf("the last admin is deleted: %v", err)
	}
	if err := r.store.Delete(t.Context(), "bob", true); err != nil {
		t.Errorf("by force: %v", err)
	}
}

func TestNotPrepared(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Shared(t).Database(t))
	_, err := Direct(conn).ListPrincipals(t.Context(), &accessv1.ListPrincipalsRequest{})
	if !errors.Is(err, ErrNotPrepared) || !strings.Contains(err.Error(), "start a Syncline server") {
		t.Error(err)
	}
}
