package applier

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const secretText = "s3cret"

// fillSecrets puts a secret into every field that the proto files call one, and returns how many there are.
func fillSecrets(m protoreflect.Message) (n int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		options, _ := fd.Options().(*descriptorpb.FieldOptions)
		switch {
		case options.GetDebugRedact() && fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString(secretText))
			n++
		case fd.Message() != nil && !fd.IsList() && !fd.IsMap():
			n += fillSecrets(m.Mutable(fd).Message())
		}
	}
	return n
}

// TestSecretsAreKeptApart shows nothing of what the proto files call secret, and puts all of it back.
func TestSecretsAreKeptApart(t *testing.T) {
	spec := &applierv1.ReplicationSpec{Source: "db1:7400"}
	if n := fillSecrets(spec.ProtoReflect()); n != 3 {
		t.Errorf("%d secret fields", n)
	}
	for _, proxy := range []string{"", secretText, "socks5h://anna:" + secretText + "@proxy:1080", "http://proxy:3128"} {
		spec.Proxy = proxy
		before := proto.CloneOf(spec)
		shown := withoutSecrets(spec)
		text, err := protojson.Marshal(shown)
		if err != nil || strings.Contains(string(text), secretText) || strings.Contains(string(text), "anna") {
			t.Errorf("shown is %s, %v", text, err)
		}
		hidden, err := wayOf(spec).Secrets()
		if err != nil {
			t.Fatal(err)
		}
		if err := addSecrets(shown, hidden); err != nil || !proto.Equal(shown, spec) || !proto.Equal(spec, before) {
			t.Errorf("put back: %v, %v", shown, err)
		}
	}
	plain := &applierv1.ReplicationSpec{Source: "db1:7400", Proxy: "http://proxy:3128", Tls: &accessv1.ClientTLS{Ca: "x"}}
	if hidden, err := wayOf(plain).Secrets(); hidden != nil || err != nil {
		t.Errorf("secrets of none: %s, %v", hidden, err)
	}
	if err := addSecrets(plain, []byte(secretText)); err == nil || strings.Contains(err.Error(), secretText) {
		t.Errorf("got %v", err)
	}
}

// TestOddConnections names the field, and never what stands in it.
func TestOddConnections(t *testing.T) {
	pem := "-----BEGIN CERTIFICATE-----\n" + secretText + "\n-----END CERTIFICATE-----\n"
	for field, spec := range map[string]*applierv1.ReplicationSpec{
		"spec.token":           {Token: secretText + " x"},
		"spec.proxy":           {Proxy: "ftp://u:" + secretText + "@x"},
		"spec.tls.ca":          {Tls: &accessv1.ClientTLS{Ca: pem}},
		"spec.tls.server_name": {Tls: &accessv1.ClientTLS{ServerName: "x\x00"}},
		"spec.tls.certificate": {Tls: &accessv1.ClientTLS{Certificate: pem, Key: secretText}},
		"spec.tls.key":         {Tls: &accessv1.ClientTLS{Certificate: pem, Key: secretText + "\x00"}},
	} {
		err := validateConnection(spec)
		if fields := rpc.Fields(err); len(fields) != 1 || fields[0].GetField() != field || strings.Contains(rpc.Message(err), secretText) {
			t.Errorf("%s: %v", field, err)
		}
	}
	alone := validateConnection(&applierv1.ReplicationSpec{Tls: &accessv1.ClientTLS{Key: secretText}})
	if rpc.Code(alone) != codes.InvalidArgument {
		t.Errorf("a key alone: %v", alone)
	}
}

// TestRefusedBySource tells a user of the replica that the source refuses the replica, not that it refuses the user.
func TestRefusedBySource(t *testing.T) {
	for code, want := range map[codes.Code]failure{
		codes.Unauthenticated:  {reasonSourceCredential, true},
		codes.PermissionDenied: {reasonSourceForbids, false},
	} {
		err := refused(rpc.Errorf(code, access.ReasonForbidden, "who are you?"))
		if rpc.Code(err) != codes.FailedPrecondition || !strings.Contains(rpc.Message(err), "who are you?") || rpc.Metadata(err)["reason"] != access.ReasonForbidden {
			t.Errorf("%s becomes %v", code, err)
		}
		if got := classify(err); got != want {
			t.Errorf("%s is %v", code, got)
		}
	}
	missing := refused(rpc.Errorf(codes.Unauthenticated, reasonNoCredential, "give a token (--token-file)"))
	if text := rpc.Message(missing); !strings.Contains(text, "--source-token-file") || strings.Contains(text, "(--token-file)") {
		t.Errorf("without a credential: %s", text)
	}
	for _, other := range []error{rpc.Errorf(codes.NotFound, "TABLE_NOT_FOUND", "x"), rpc.Errorf(codes.PermissionDenied, "MISSING_PRIVILEGE", "GRANT …")} {
		if got := refused(other); !errors.Is(got, other) || rpc.Code(got) != rpc.Code(other) {
			t.Errorf("%v is no refusal and becomes %v", other, got)
		}
	}
	if refused(nil) != nil {
		t.Error("no error is one")
	}
}

// TestTokenStaysWhereItWasMeantFor: an operator who may change where a source is must not get hold of its token by that.
func TestTokenStaysWhereItWasMeantFor(t *testing.T) {
	with, without := &applierv1.ReplicationSpec{Token: "secret"}, &applierv1.ReplicationSpec{}
	mask := func(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
	for _, field := range []string{"source", "inventory", "proxy", "tls"} {
		if err := keepsToken(with, []string{field}, mask(field)); rpc.Reason(err) != rpc.ReasonInvalid {
			t.Errorf("%s is changed alone: %v", field, err)
		}
		if err := keepsToken(with, []string{field, "token"}, mask(field, "token")); err != nil {
			t.Errorf("%s is changed with a token: %v", field, err)
		}
		if err := keepsToken(without, []string{field}, mask(field)); err != nil {
			t.Errorf("%s is changed without any token: %v", field, err)
		}
	}
	if err := keepsToken(with, []string{"copy_workers"}, mask("copy_workers")); err != nil {
		t.Error(err)
	}
}
