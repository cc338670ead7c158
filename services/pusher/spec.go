package pusher

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/certfile"
	"github.com/seed0419d559/syncline/internal/proxy"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// secrets is what a push's options hold that is never given back. It is stored apart from them.
type secrets struct {
	Token string `json:"token,omitempty"`
	Key   string `json:"key,omitempty"`   // of the client certificate
	Proxy string `json:"proxy,omitempty"` // with user and password
}

// withoutSecrets returns a copy of a push's options as they may be shown and stored.
func withoutSecrets(spec *pushv1.PushSpec) *pushv1.PushSpec {
	shown := proto.CloneOf(spec)
	shown.Token = ""
	if shown.GetTls() != nil {
		shown.Tls.Key = ""
	}
	shown.Proxy = proxy.Redact(spec.GetProxy())
	if o := shown.GetOptions(); o != nil { // none of it is taken
		o.Token, o.Tls, o.Proxy = "", nil, ""
	}
	return shown
}

func secretsOf(spec *pushv1.PushSpec) secrets {
	s := secrets{Token: spec.GetToken(), Key: spec.GetTls().GetKey()}
	if proxy.Redact(spec.GetProxy()) != spec.GetProxy() {
		s.Proxy = spec.GetProxy()
	}
	return s
}

// addSecrets puts stored secrets back into options.
func addSecrets(spec *pushv1.PushSpec, text []byte) error {
	if text == nil {
		return nil
	}
	var s secrets
	if err := json.Unmarshal(text, &s); err != nil {
		return errors.New("read stored credentials: they are not as they were stored") // the error might show them
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

func storeSecrets(ctx context.Context, tx pgx.Tx, name string, spec *pushv1.PushSpec) error {
	_, err := tx.Exec(ctx, "DELETE FROM syncline.push_secrets WHERE push = $1", name)
	if s := secretsOf(spec); err == nil && s != (secrets{}) {
		var text []byte
		if text, err = json.Marshal(s); err == nil {
			_, err = tx.Exec(ctx, "INSERT INTO syncline.push_secrets (push, secrets) VALUES ($1, $2)", name, string(text))
		}
	}
	if err != nil {
		return fmt.Errorf("store credentials of push %s: %w", name, err)
	}
	return nil
}

const (
	maxNameBytes        = 63
	maxDescriptionRunes = 1000
	maxPEMBytes         = 256 << 10
	minRetryBase        = 10 * time.Millisecond
	maxRetryBase        = time.Hour
	maxRetryCap         = 24 * time.Hour
)

// problems collects what is wrong with a request, field by field.
type problems struct{ err *rpc.Error }

func (p *problems) add(field, format string, args ...any) {
	if p.err == nil {
		p.err = rpc.Invalid(field, format, args...)
		return
	}
	p.err = p.err.Field(field, format, args...)
}

func (p *problems) result() error {
	if p.err == nil {
		return nil
	}
	return p.err
}

// validate refuses what can be told without asking anybody, every field at once. Its errors do not show secrets.
func validate(name string, spec *pushv1.PushSpec) error {
	p := &problems{}
	if len(name) > maxNameBytes || !nameForm.MatchString(name) {
		p.add("name", "%.100q is not a name of 1 to %d characters of a-z, 0-9, - and _ that begins with a letter", name, maxNameBytes)
	}
	if spec.GetTarget() == "" {
		p.add("spec.target", "the address (HOST:PORT) of a replica is needed")
	} else if _, err := rpc.CheckAddress(spec.GetTarget()); err != nil {
		p.add("spec.target", "%v", err)
	}
	if r := spec.GetReplication(); r != "" && (len(r) > maxNameBytes || !nameForm.MatchString(r)) {
		p.add("spec.replication", "%.100q is no name of a replication", r)
	}
	if spec.GetSet() == "" && len(spec.GetParameters()) > 0 {
		p.add("spec.parameters", "they belong to a set, and none is named in spec.set")
	}
	if err := certfile.CheckToken(spec.GetToken()); err != nil {
		p.add("spec.token", "%v", err)
	}
	if t := spec.GetTls(); t != nil {
		if _, err := targetTLS(t); err != nil {
			p.add("spec.tls", "%v", err)
		}
	}
	if spec.GetProxy() != "" {
		if _, err := proxy.Parse(spec.GetProxy()); err != nil {
			p.add("spec.proxy", "%v", err)
		}
	}
	if text := spec.GetDescription(); utf8.RuneCountInString(text) > maxDescriptionRunes || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		p.add("spec.description", "it is one line of text, of at most %d characters", maxDescriptionRunes)
	}
	checkRetries(p, spec)
	checkOptions(p, spec)
	return p.result()
}

func checkRetries(p *problems, spec *pushv1.PushSpec) {
	within := func(field string, d *durationpb.Duration, most time.Duration) {
		switch {
		case d == nil:
		case d.CheckValid() != nil:
			p.add(field, "is not a duration")
		case d.AsDuration() < minRetryBase || d.AsDuration() > most:
			p.add(field, "%s is not from %s to %s", d.AsDuration(), minRetryBase, most)
		}
	}
	within("spec.retry_base", spec.GetRetryBase(), maxRetryBase)
	within("spec.retry_cap", spec.GetRetryCap(), maxRetryCap)
	if base, most := retries(spec); p.err == nil && base > most {
		p.add("spec.retry_cap", "%s is less than retry_base, %s", most, base)
	}
}

// retries returns the shortest and the longest pause between two attempts.
func retries(spec *pushv1.PushSpec) (base, most time.Duration) {
	base, most = DefaultRetryBase, DefaultRetryCap
	if d := spec.GetRetryCap(); d != nil {
		most = d.AsDuration()
		base = min(base, most)
	}
	if d := spec.GetRetryBase(); d != nil {
		base = d.AsDuration()
	}
	return base, most
}

// checkOptions refuses what the push itself says.
func checkOptions(p *problems, spec *pushv1.PushSpec) {
	o := spec.GetOptions()
	for _, one := range []struct {
		field string
		set   bool
	}{
		{"source", o.GetSource() != ""}, {"inventory", o.GetInventory() != ""}, {"set", o.GetSet() != ""}, {"parameters", len(o.GetParameters()) > 0},
		{"token", o.GetToken() != ""}, {"tls", o.GetTls() != nil}, {"proxy", o.GetProxy() != ""},
	} {
		if one.set {
			p.add("spec.options."+one.field, "the push says this itself; leave it out")
		}
	}
	if spec.GetSet() != "" && len(o.GetIncludeTables())+len(o.GetExcludeTables()) > 0 {
		p.add("spec.options.include_tables", "set %s selects the tables; leave include_tables and exclude_tables out", spec.GetSet())
	}
}

// targetTLS makes the configuration of the connection. Its errors do not show what is wrong with a key.
func targetTLS(t *pushv1.TargetTLS) (*tls.Config, error) {
	for field, text := range map[string]string{"ca": t.GetCa(), "server_name": t.GetServerName(), "certificate": t.GetCertificate(), "key": t.GetKey()} {
		if len(text) > maxPEMBytes || strings.Contains(text, "\x00") {
			return nil, fmt.Errorf("%s has more than %d bytes, or a zero byte", field, maxPEMBytes)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.GetServerName()}
	if t.GetCa() != "" {
		pool, err := certfile.Pool([]byte(t.GetCa()))
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = pool
	}
	if (t.GetCertificate() == "") != (t.GetKey() == "") {
		return nil, errors.New("a certificate and its key belong together: one of the two is missing")
	}
	if t.GetCertificate() != "" {
		pair, err := tls.X509KeyPair([]byte(t.GetCertificate()), []byte(t.GetKey()))
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// connection is what a push says about the way to its target. It stands over what the process says.
func connection(spec *pushv1.PushSpec) ([]rpc.DialOption, error) {
	var options []rpc.DialOption
	if token := spec.GetToken(); token != "" {
		options = append(options, rpc.WithToken(func() (string, error) { return token, nil }))
	}
	if t := spec.GetTls(); t != nil {
		config, err := targetTLS(t)
		if err != nil {
			return nil, rpc.Invalid("spec.tls", "%v", err)
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
	return options, nil
}

// replicationSpec is how the target's replication is created.
func replicationSpec(name string, spec *pushv1.PushSpec) *applierv1.ReplicationSpec {
	r := &applierv1.ReplicationSpec{}
	if spec.GetOptions() != nil {
		r = proto.CloneOf(spec.GetOptions())
	}
	r.Source, r.Set, r.Parameters = "push:"+name, spec.GetSet(), spec.GetParameters()
	if r.GetDescription() == "" {
		r.Description = spec.GetDescription()
	}
	return r
}

// replicationName is the name of the target's replication.
func replicationName(name string, spec *pushv1.PushSpec) string {
	if spec.GetReplication() != "" {
		return spec.GetReplication()
	}
	return name
}
