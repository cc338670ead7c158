package applier

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/certfile"
	"github.com/seed0419d559/syncline/internal/proxy"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// secrets is what a replication's options hold that is never given back. It is stored apart from them.
type secrets struct {
	Token string `json:"token,omitempty"`
	Key   string `json:"key,omitempty"`   // of the client certificate
	Proxy string `json:"proxy,omitempty"` // with user and password
}

// withoutSecrets returns a copy of a replication's options as they may be shown and stored.
func withoutSecrets(spec *applierv1.ReplicationSpec) *applierv1.ReplicationSpec {
	shown := proto.CloneOf(spec)
	shown.Token = ""
	if shown.GetTls() != nil {
		shown.Tls.Key = ""
	}
	shown.Proxy = proxy.Redact(spec.GetProxy())
	return shown
}

// secretsOf returns the secrets in JSON, nil without any.
func secretsOf(spec *applierv1.ReplicationSpec) ([]byte, error) {
	s := secrets{Token: spec.GetToken(), Key: spec.GetTls().GetKey()}
	if proxy.Redact(spec.GetProxy()) != spec.GetProxy() {
		s.Proxy = spec.GetProxy()
	}
	if s == (secrets{}) {
		return nil, nil
	}
	return json.Marshal(s)
}

// addSecrets puts stored secrets back into options.
func addSecrets(spec *applierv1.ReplicationSpec, text []byte) error {
	if text == nil {
		return nil
	}
	var s secrets
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("read stored credentials: they are not as they were stored") // the error might show them
	}
	spec.Token = s.Token
	if s.Key != "" && spec.GetTls() != nil {
		spec.Tls.Key = s.Key
	}
	if s.Proxy != "" {
		spec.Proxy = s.Proxy
	}
	return nil
}

// storeSecrets stores what withoutSecrets leaves out of a replication's options. It belongs into the transaction that stores those.
func storeSecrets(ctx context.Context, q querier, replication string, spec *applierv1.ReplicationSpec) error {
	hidden, err := secretsOf(spec)
	if err != nil {
		return err
	}
	if hidden == nil {
		_, err = q.Exec(ctx, "DELETE FROM syncline.replication_secrets WHERE replication = $1", replication)
		return err
	}
	_, err = q.Exec(ctx, `INSERT INTO syncline.replication_secrets (replication, secrets) VALUES ($1, $2)
		ON CONFLICT (replication) DO UPDATE SET secrets = excluded.secrets`, replication, string(hidden))
	return err
}

// keepsToken refuses to send a stored token to where whoever stored it did not mean it for: who decides where it goes has to know it.
func keepsToken(before *applierv1.ReplicationSpec, changed []string, mask *fieldmaskpb.FieldMask) error {
	if before.GetToken() == "" || slices.Contains(mask.GetPaths(), "token") {
		return nil
	}
	for _, field := range []string{"source", "inventory", "proxy", "tls"} {
		if slices.Contains(changed, field) {
			return rpc.Invalid("spec.token", "the replication has a token, and with another %s it would go elsewhere: give the token too", field)
		}
	}
	return nil
}

// validateConnection refuses what no connection can be made with. Its errors do not show secrets.
func validateConnection(spec *applierv1.ReplicationSpec) error {
	if err := certfile.CheckToken(spec.GetToken()); err != nil {
		return rpc.Invalid("spec.token", "%v", err)
	}
	if t := spec.GetTls(); t != nil {
		if _, err := sourceTLS(t); err != nil {
			return err
		}
	}
	if spec.GetProxy() != "" {
		if _, err := proxy.Parse(spec.GetProxy()); err != nil {
			return rpc.Invalid("spec.proxy", "%v", err)
		}
	}
	return nil
}

func sourceTLS(t *applierv1.SourceTLS) (*tls.Config, error) {
	for field, text := range map[string]string{"ca": t.GetCa(), "server_name": t.GetServerName(), "certificate": t.GetCertificate(), "key": t.GetKey()} {
		const mostBytes = 256 << 10
		if len(text) > mostBytes || strings.Contains(text, "\x00") {
			return nil, rpc.Invalid("spec.tls."+field, "it has more than %d bytes, or a zero byte", mostBytes)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.GetServerName()}
	if t.GetCa() != "" {
		pool, err := certfile.Pool([]byte(t.GetCa()))
		if err != nil {
			return nil, rpc.Invalid("spec.tls.ca", "%v", err)
		}
		config.RootCAs = pool
	}
	if (t.GetCertificate() == "") != (t.GetKey() == "") {
		return nil, rpc.Invalid("spec.tls.certificate", "a certificate and its key belong together: one of the two is missing")
	}
	if t.GetCertificate() != "" {
		pair, err := tls.X509KeyPair([]byte(t.GetCertificate()), []byte(t.GetKey()))
		if err != nil {
			return nil, rpc.Invalid("spec.tls.certificate", "%v", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// connectionOptions are what a replication says about the connection to its source. They stand over those of the process.
func connectionOptions(spec *applierv1.ReplicationSpec) ([]rpc.DialOption, error) {
	var options []rpc.DialOption
	if token := spec.GetToken(); token != "" {
		options = append(options, rpc.WithToken(func() (string, error) { return token, nil }))
	}
	if t := spec.GetTls(); t != nil {
		config, err := sourceTLS(t)
		if err != nil {
			return nil, err
		}
		options = append(options, rpc.WithTLS(func() (*tls.Config, error) { return config.Clone(), nil }))
	}
	if spec.GetProxy() != "" {
		p, err := proxy.Parse(spec.GetProxy())
		if err != nil {
			return nil, rpc.Invalid("spec.proxy", "%v", err)
		}
		options = append(options, rpc.WithProxy(p.Dial))
	}
	return append(options, refusals(), rpc.WithFlags("source-", "`syncline replica`")), nil
}
