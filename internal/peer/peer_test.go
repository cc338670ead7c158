package peer

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const secret = "s3cret"

// TestStoredForm reads what versions before this one have stored, of replications and of pushes, and writes the same.
func TestStoredForm(t *testing.T) {
	const stored = `{"token":"t","key":"k","proxy":"http://anna:s3cret@proxy:3128"}`
	shown := Way{TLS: &accessv1.ClientTLS{Ca: "CA", Certificate: "C"}, Proxy: "http://proxy:3128"}
	got, err := shown.WithSecrets([]byte(stored))
	want := Way{"t", &accessv1.ClientTLS{Ca: "CA", Certificate: "C", Key: "k"}, "http://anna:s3cret@proxy:3128"}
	if err != nil || got.Token != want.Token || got.Proxy != want.Proxy || !proto.Equal(got.TLS, want.TLS) {
		t.Errorf("read %v, %v", got, err)
	}
	if text, err := got.Secrets(); err != nil || string(text) != stored {
		t.Errorf("wrote %s, %v", text, err)
	}
	if again := got.Shown(); again.Token != "" || again.Proxy != shown.Proxy || !proto.Equal(again.TLS, shown.TLS) || got.TLS.GetKey() != "k" {
		t.Errorf("shown is %v, of %v", again, got)
	}
	if text, err := (Way{Proxy: "http://proxy:3128"}).Secrets(); text != nil || err != nil {
		t.Errorf("secrets of none: %s, %v", text, err)
	}
	if none, err := (Way{}).WithSecrets(nil); err != nil || !reflect.DeepEqual(none, Way{}) || !reflect.DeepEqual(none.Shown(), Way{}) {
		t.Errorf("of nothing: %v, %v", none, err)
	}
	if _, err := shown.WithSecrets([]byte(secret)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("of something else: %v", err)
	}
}

// TestCheck names each field that is wrong, and nothing of what is secret.
func TestCheck(t *testing.T) {
	pem := "-----BEGIN CERTIFICATE-----\n" + secret + "\n-----END CERTIFICATE-----\n"
	for name, test := range map[string]struct {
		way  Way
		want []string
	}{
		"nothing":               {Way{}, nil},
		"all good":              {Way{"token", &accessv1.ClientTLS{ServerName: "db1"}, "socks5h://anna:" + secret + "@proxy:1080"}, nil},
		"token and proxy":       {Way{Token: secret + " x", Proxy: "ftp://u:" + secret + "@x"}, []string{"token", "proxy"}},
		"authorities":           {Way{TLS: &accessv1.ClientTLS{Ca: pem}}, []string{"tls.ca"}},
		"a name":                {Way{TLS: &accessv1.ClientTLS{ServerName: "x\x00"}}, []string{"tls.server_name"}},
		"a key of another":      {Way{TLS: &accessv1.ClientTLS{Certificate: pem, Key: secret}}, []string{"tls.certificate"}},
		"a key alone":           {Way{TLS: &accessv1.ClientTLS{Key: secret}}, []string{"tls.certificate"}},
		"a key that is no text": {Way{TLS: &accessv1.ClientTLS{Key: secret + "\x00"}}, []string{"tls.key"}},
		"too much":              {Way{TLS: &accessv1.ClientTLS{Ca: strings.Repeat("x", maxPEMBytes+1)}}, []string{"tls.ca"}},
	} {
		var got []string
		for _, p := range test.way.Check() {
			got = append(got, p.Field)
			if strings.Contains(p.Text, secret) || p.Text == "" {
				t.Errorf("%s: %s", name, p.Text)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, expected %v", name, got, test.want)
		}
		options, err := test.way.Options()
		if (err == nil) != (test.want == nil) || err != nil && (rpc.Reason(err) != rpc.ReasonInvalid || !strings.HasPrefix(err.Error(), "spec."+test.want[0]+": ")) {
			t.Errorf("%s: %d options, %v", name, len(options), err)
		}
		if name == "all good" && len(options) != 3 {
			t.Errorf("%d options", len(options))
		}
	}
}
