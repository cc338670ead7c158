package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// fakeAccess has a principal of each kind.
type fakeAccess struct {
	accessv1.UnimplementedAccessServiceServer
	created *accessv1.CreatePrincipalRequest
	list    []*accessv1.Principal
}

func (f *fakeAccess) Register(r grpc.ServiceRegistrar) { accessv1.RegisterAccessServiceServer(r, f) }

const fakeToken = "syncline_dG9rZW4"

func (f *fakeAccess) CreatePrincipal(_ context.Context, in *accessv1.CreatePrincipalRequest) (*accessv1.CreatePrincipalResponse, error) {
	f.created = in
	p := &accessv1.Principal{Name: in.GetName(), Role: in.GetRole(), Grants: in.GetGrants(), Certificate: in.GetCertificate(), CreateTime: timestamppb.New(longAgo)}
	if in.GetName() == "Ada" {
		return nil, rpc.Invalid("name", "%q is not a name", in.GetName())
	}
	if in.GetCertificate() != "" {
		return &accessv1.CreatePrincipalResponse{Principal: p}, nil
	}
	p.TokenTime = timestamppb.New(longAgo)
	return &accessv1.CreatePrincipalResponse{Principal: p, Token: fakeToken}, nil
}

func (f *fakeAccess) ListPrincipals(context.Context, *accessv1.ListPrincipalsRequest) (*accessv1.ListPrincipalsResponse, error) {
	return &accessv1.ListPrincipalsResponse{Principals: f.list}, nil
}

func (f *fakeAccess) DeletePrincipal(_ context.Context, in *accessv1.DeletePrincipalRequest) (*accessv1.DeletePrincipalResponse, error) {
	if in.GetName() != "ada" {
		return nil, rpc.Errorf(codes.NotFound, "PRINCIPAL_NOT_FOUND", "there is no such principal: %q", in.GetName())
	}
	return &accessv1.DeletePrincipalResponse{}, nil
}

func (f *fakeAccess) RotateToken(_ context.Context, in *accessv1.RotateTokenRequest) (*accessv1.RotateTokenResponse, error) {
	return &accessv1.RotateTokenResponse{Principal: &accessv1.Principal{Name: in.GetName()}, Token: fakeToken}, nil
}

func fakePrincipals() []*accessv1.Principal {
	at := timestamppb.New(longAgo)
	return []*accessv1.Principal{
		{Name: "ada", Role: accessv1.Role_ROLE_ADMIN, CreateTime: at, TokenTime: at},
		{Name: "prometheus", Role: accessv1.Role_ROLE_READER, CreateTime: at, Certificate: "cn:prometheus"},
		{Name: "replica1", Role: accessv1.Role_ROLE_REPLICATOR, CreateTime: at, Certificate: "dns:replica1.example", Grants: []*accessv1.Grant{{Set: "*"}}},
		{Name: "replica2", Role: accessv1.Role_ROLE_REPLICATOR, CreateTime: at, TokenTime: at},
		{Name: "shop7", Role: accessv1.Role_ROLE_REPLICATOR, CreateTime: at, TokenTime: at, Grants: []*accessv1.Grant{{Set: "orders", Parameters: map[string]string{"org": "7", "region": "eu"}}, {Set: "countries"}}},
	}
}

func TestPrincipalTranscripts(t *testing.T) {
	server := serveFake(t, identify("logger"), &fakeAccess{list: fakePrincipals()})
	fresh := serveFake(t, identify("logger"), &fakeAccess{})
	for name, args := range map[string][]string{
		"principal_create":      {"principal", "create", "shop7", "--role", "replicator", "--set", "orders:org=7,region=eu", "--set", "countries", "--addr", server},
		"principal_certificate": {"principal", "create", "replica1", "--role", "replicator", "--set", "*", "--certificate", "dns:replica1.example", "--addr", server},
		"principal_json":        {"principal", "create", "ada", "--role", "admin", "--json", "--addr", server},
		"principal_role":        {"principal", "create", "ada", "--role", "root", "--addr", server},
		"principal_set":         {"principal", "create", "ada", "--role", "replicator", "--set", "orders:org", "--addr", server},
		"principal_name":        {"principal", "create", "Ada", "--role", "admin", "--addr", server},
		"principal_list":        {"principal", "list", "--addr", server},
		"principal_none":        {"principal", "list", "--addr", fresh},
		"principal_delete":      {"principal", "delete", "ada", "--addr", server},
		"principal_unknown":     {"principal", "delete", "eve", "--addr", server},
		"principal_rotate":      {"principal", "rotate", "ada", "--addr", server},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := command(t, nil, args...)
			text := "$ syncline " + strings.Join(args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			text += "--- exit code " + string(rune('0'+code)) + "\n"
			golden(t, name, strings.NewReplacer(server, "SERVER", fresh, "SERVER").Replace(text))
		})
	}
}

// TestTokenGoesIntoAFile writes a token where only its owner reads it, and nowhere else.
func TestTokenGoesIntoAFile(t *testing.T) {
	server := serveFake(t, &fakeAccess{})
	path := filepath.Join(t.TempDir(), "ada.token")
	for _, args := range [][]string{{"create", "ada", "--role", "admin"}, {"create", "ada", "--role", "admin", "--json"}, {"rotate", "ada"}} {
		out, errOut, code := command(t, nil, append(append([]string{"principal"}, args...), "--token-to", path, "--addr", server)...)
		if code != exitDone || strings.Contains(out+errOut, fakeToken) {
			t.Errorf("%v: exit code %d, %s%s", args, code, out, errOut)
		}
		text, err := os.ReadFile(path)
		if err != nil || string(text) != fakeToken+"\n" {
			t.Errorf("%v: the file holds %q, %v", args, text, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v: mode %v, %v", args, info.Mode(), err)
		}
		if _, errOut, code = command(t, nil, append(append([]string{"principal"}, args...), "--token-to", path, "--addr", server)...); code != exitWrongUse || !strings.Contains(errOut, "exists") {
			t.Errorf("%v over a file that is there: exit code %d, %s", args, code, errOut)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, code := command(t, nil, "principal", "create", "Ada", "--role", "admin", "--token-to", path, "--addr", server); code != exitWrongUse {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file is left of what failed: %v", err)
	}
}

// TestProtectionFlags refuses what would leave a secret or a server open by mistake.
func TestProtectionFlags(t *testing.T) {
	const database = "postgres://u:hidden@127.0.0.1:1/d"
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		environment []string
		args        []string
		want        string
	}{
		"token shown":       {nil, []string{"status", "--token", "x"}, "can be read by everybody"},
		"two tokens":        {[]string{"SYNCLINE_TOKEN=x"}, []string{"status", "--token-file", token}, "both set"},
		"odd token":         {[]string{"SYNCLINE_TOKEN=x y"}, []string{"status"}, "SYNCLINE_TOKEN is no token"},
		"two lines":         {nil, []string{"status", "--token-file", token}, "a space or a character"},
		"no token":          {nil, []string{"status", "--token-file", token + "x"}, "no such file"},
		"key alone":         {nil, []string{"status", "--tls-key", token}, "belong together"},
		"no authority":      {nil, []string{"status", "--tls-ca", token}, "no certificate in PEM"},
		"open gRPC":         {nil, []string{"replica", "--postgres", database, "--grpc", "0.0.0.0:0"}, "--grpc 0.0.0.0:0 is reached by other machines"},
		"open HTTP":         {nil, []string{"replica", "--postgres", database, "--http", ":0"}, "--http :0 is reached by other machines"},
		"open gateway":      {nil, []string{"gateway", "--http", "0.0.0.0:0"}, "--http 0.0.0.0:0 is reached by other machines"},
		"odd auth":          {nil, []string{"replica", "--postgres", database, "--auth", "maybe"}, "use on, off or auto"},
		"clients in plain":  {nil, []string{"replica", "--postgres", database, "--tls-client-ca", token}, "needs --tls-cert"},
		"server's key gone": {nil, []string{"replica", "--postgres", database, "--grpc", "127.0.0.1:0", "--http", "", "--tls-cert", token}, "127.0.0.1:1"}, // the database comes first
	} {
		t.Run(name, func(t *testing.T) {
			_, errOut, code := command(t, test.environment, test.args...)
			if code == exitDone || !strings.Contains(errOut, test.want) || strings.Contains(errOut, "hidden") {
				t.Errorf("exit code %d, %s", code, errOut)
			}
		})
	}
}

func TestAuthAuto(t *testing.T) {
	for _, test := range []struct {
		auth, grpc, http string
		want             bool
	}{
		{"auto", "127.0.0.1:1", "127.0.0.1:2", false},
		{"auto", "[::1]:1", "", false},
		{"auto", "localhost:1", "127.0.0.1:2", false},
		{"auto", "0.0.0.0:1", "127.0.0.1:2", true},
		{"auto", "127.0.0.1:1", ":2", true},
		{"auto", "127.0.0.1:1", "[::]:2", true},
		{"auto", "10.0.0.1:1", "", true},
		{"on", "127.0.0.1:1", "", true},
		{"off", "0.0.0.0:1", "0.0.0.0:2", false},
	} {
		f := protectFlags{auth: test.auth}
		if got := f.required(test.grpc, test.http); got != test.want {
			t.Errorf("%+v: required %v", test, got)
		}
	}
}
