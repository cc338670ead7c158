package pusher

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
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

// TestSecretsAreKeptApart shows and stores nothing of what the proto files call secret, and puts a push's own back.
func TestSecretsAreKeptApart(t *testing.T) {
	spec := &pushv1.PushSpec{Target: "db2:7500"}
	if n := fillSecrets(spec.ProtoReflect()); n != 6 {
		t.Errorf("%d secret fields", n)
	}
	text, err := protojson.Marshal(withoutSecrets(spec))
	if err != nil || strings.Contains(string(text), secretText) {
		t.Errorf("shown is %s, %v", text, err)
	}
	if err := validate("shop", spec); err == nil || strings.Contains(err.Error(), secretText) || !strings.Contains(err.Error(), "spec.options.token") {
		t.Errorf("secrets of the replication's source are taken: %v", err)
	}
	spec.Options = nil
	for _, proxy := range []string{"", "socks5h://anna:" + secretText + "@proxy:1080", "http://proxy:3128"} {
		spec.Proxy = proxy
		shown := withoutSecrets(spec)
		hidden, err := wayOf(spec).Secrets()
		if err != nil || strings.Contains(string(hidden), "http://proxy:3128") {
			t.Errorf("a proxy without a password is kept as a secret: %v", err)
		}
		if err := addSecrets(shown, hidden); err != nil || !proto.Equal(shown, spec) {
			t.Errorf("put back: %v, %v", shown, err)
		}
	}
	if err := addSecrets(spec, []byte(secretText)); err == nil || strings.Contains(err.Error(), secretText) {
		t.Errorf("got %v", err)
	}
}

// TestOddSpecs names each field that is wrong, and never what is secret in it.
func TestOddSpecs(t *testing.T) {
	pem := "-----BEGIN CERTIFICATE-----\n" + secretText + "\n-----END CERTIFICATE-----\n"
	good := func(edit func(*pushv1.PushSpec)) *pushv1.PushSpec {
		spec := &pushv1.PushSpec{Target: "db2:7500", Set: "by-org", Parameters: map[string]string{"org": "7"}}
		edit(spec)
		return spec
	}
	if err := validate("shop", good(func(*pushv1.PushSpec) {})); err != nil {
		t.Error(err)
	}
	for field, edit := range map[string]func(*pushv1.PushSpec){
		"spec.target":          func(s *pushv1.PushSpec) { s.Target = "db2" },
		"spec.replication":     func(s *pushv1.PushSpec) { s.Replication = "Shop" },
		"spec.parameters":      func(s *pushv1.PushSpec) { s.Set = "" },
		"spec.token":           func(s *pushv1.PushSpec) { s.Token = secretText + " x" },
		"spec.proxy":           func(s *pushv1.PushSpec) { s.Proxy = "ftp://u:" + secretText + "@x" },
		"spec.tls.certificate": func(s *pushv1.PushSpec) { s.Tls = &accessv1.ClientTLS{Certificate: pem, Key: secretText} },
		"spec.description":     func(s *pushv1.PushSpec) { s.Description = "a\nb" },
		"spec.retry_base":      func(s *pushv1.PushSpec) { s.RetryBase = durationpb.New(time.Millisecond) },
		"spec.retry_cap": func(s *pushv1.PushSpec) {
			s.RetryBase, s.RetryCap = durationpb.New(time.Minute), durationpb.New(time.Second)
		},
		"spec.options.source":         func(s *pushv1.PushSpec) { s.Options = &applierv1.ReplicationSpec{Source: "db1:7400"} },
		"spec.options.set":            func(s *pushv1.PushSpec) { s.Options = &applierv1.ReplicationSpec{Set: "x"} },
		"spec.options.include_tables": func(s *pushv1.PushSpec) { s.Options = &applierv1.ReplicationSpec{IncludeTables: []string{"a.b"}} },
	} {
		err := validate("shop", good(edit))
		if rpc.Code(err) != codes.InvalidArgument || !strings.HasPrefix(err.Error(), field+": ") || strings.Contains(err.Error(), secretText) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := validate("7400", good(func(*pushv1.PushSpec) {})); err == nil {
		t.Error("a name that is a port is taken: push:7400 is an address")
	}
}

// TestMerge changes what may be changed, and sends a token nowhere else.
func TestMerge(t *testing.T) {
	before := &pushv1.PushSpec{Target: "db2:7500", Token: secretText, Description: "d"}
	change := func(spec *pushv1.PushSpec, paths ...string) (*pushv1.PushSpec, error) {
		return merge(before, &pushv1.UpdatePushRequest{Spec: spec, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	}
	got, err := change(&pushv1.PushSpec{Target: "db3:7500", Token: "t2"}, "target", "token", "description")
	if want := (&pushv1.PushSpec{Target: "db3:7500", Token: "t2"}); err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, test := range map[string]struct {
		spec  *pushv1.PushSpec
		paths []string
	}{
		"nothing": {&pushv1.PushSpec{}, nil}, "another field": {&pushv1.PushSpec{}, []string{"x"}}, "the set": {&pushv1.PushSpec{Set: "x"}, []string{"set"}},
		"not named": {&pushv1.PushSpec{Description: "x"}, []string{"retry_cap"}}, "the token, elsewhere": {&pushv1.PushSpec{Target: "db3:7500"}, []string{"target"}},
		"the token, by another proxy": {&pushv1.PushSpec{Proxy: "http://p:1"}, []string{"proxy"}}, "the token, to anybody": {nil, []string{"tls"}},
	} {
		if got, err := change(test.spec, test.paths...); rpc.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestClassify tells what is tried again, and whose fault it is.
func TestClassify(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		reason string
		passes bool
		here   bool
	}{
		"nobody there":       {status.Error(codes.Unavailable, "refused"), reasonNoTarget, true, false},
		"no answer":          {context.DeadlineExceeded, reasonNoTarget, true, false},
		"no such method":     {status.Error(codes.Unimplemented, "x"), reasonNotTarget, false, false},
		"credential":         {rpc.Errorf(codes.Unauthenticated, "CREDENTIAL_INVALID", "x"), reasonCredential, true, true},
		"role":               {rpc.Errorf(codes.PermissionDenied, access.ReasonForbidden, "x"), reasonForbids, false, true},
		"a GRANT there":      {rpc.Errorf(codes.PermissionDenied, "MISSING_PRIVILEGE", "x"), "MISSING_PRIVILEGE", false, false},
		"the target's word":  {rpc.Errorf(codes.FailedPrecondition, "SCHEMA_MISMATCH", "x"), "SCHEMA_MISMATCH", false, false},
		"the target stops":   {rpc.Errorf(codes.Unavailable, rpc.ReasonStopping, "x"), rpc.ReasonStopping, true, false},
		"another push":       {rpc.Errorf(codes.Aborted, "PUSH_ATTACHED", "x"), "PUSH_ATTACHED", true, false},
		"the stream breaks":  {status.Error(codes.Internal, "stream error"), reasonNoTarget, true, false},
		"deleted there":      {failed(reasonGone, "x"), reasonGone, false, true},
		"something else":     {errors.New("x"), reasonNoTarget, true, false},
		"wrapped, of ours":   {rpc.Errorf(codes.InvalidArgument, rpc.ReasonInvalid, "x"), rpc.ReasonInvalid, false, true},
		"unencrypted, to it": {failed(reasonNoTarget, "x"), reasonNoTarget, false, true},
	} {
		if f := classify(test.err, "db2:7500"); f.reason != test.reason || f.passes != test.passes || f.here != test.here || f.text == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestPause grows to its longest, and is never nothing.
func TestPause(t *testing.T) {
	for attempt := range 100 {
		d := pause(100*time.Millisecond, time.Second, attempt)
		if d < 50*time.Millisecond || d > time.Second || attempt > 4 && d < 500*time.Millisecond {
			t.Errorf("attempt %d: %s", attempt, d)
		}
	}
	if base, most := retries(&pushv1.PushSpec{RetryCap: durationpb.New(10 * time.Millisecond)}); base != most || most != 10*time.Millisecond {
		t.Errorf("from %s to %s", base, most)
	}
}

// TestPrincipal binds a target to its set, and to nothing when it says to be somebody else.
func TestPrincipal(t *testing.T) {
	spec := &pushv1.PushSpec{Set: "by-org", Parameters: map[string]string{"org": "7"}}
	p := principalOf("acme", spec)
	if p.Name != "push:acme" || p.Role != access.Replicator || len(p.Grants) != 1 || p.Grants[0].String() != "by-org:org=7" || access.CheckName(p.Name) == nil {
		t.Errorf("%+v", p)
	}
	if whole := principalOf("acme", &pushv1.PushSpec{}); whole.Grants[0].Set != access.WholeDatabase {
		t.Errorf("%+v", whole)
	}
	if r := replicationSpec("acme", spec); r.GetSource() != "push:acme" || r.GetSet() != "by-org" || r.GetParameters()["org"] != "7" {
		t.Errorf("%v", r)
	}
}
