package pusher

import (
	"context"
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
	"github.com/seed0419d559/syncline/internal/peer"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// wayOf is what a push says of the way to its target.
func wayOf(spec *pushv1.PushSpec) peer.Way {
	return peer.Way{Token: spec.GetToken(), TLS: spec.GetTls(), Proxy: spec.GetProxy()}
}

// withoutSecrets returns a copy of a push's options as they may be shown and stored.
func withoutSecrets(spec *pushv1.PushSpec) *pushv1.PushSpec {
	shown, way := proto.CloneOf(spec), wayOf(spec).Shown()
	shown.Token, shown.Tls, shown.Proxy = way.Token, way.TLS, way.Proxy
	if o := shown.GetOptions(); o != nil { // none of it is taken
		o.Token, o.Tls, o.Proxy = "", nil, ""
	}
	return shown
}

// addSecrets puts stored secrets back into options.
func addSecrets(spec *pushv1.PushSpec, text []byte) error {
	way, err := wayOf(spec).WithSecrets(text)
	if err == nil {
		spec.Token, spec.Tls, spec.Proxy = way.Token, way.TLS, way.Proxy
	}
	return err
}

func storeSecrets(ctx context.Context, tx pgx.Tx, name string, spec *pushv1.PushSpec) error {
	hidden, err := wayOf(spec).Secrets()
	if err == nil {
		_, err = tx.Exec(ctx, "DELETE FROM syncline.push_secrets WHERE push = $1", name)
	}
	if err == nil && hidden != nil {
		_, err = tx.Exec(ctx, "INSERT INTO syncline.push_secrets (push, secrets) VALUES ($1, $2)", name, string(hidden))
	}
	if err != nil {
		return fmt.Errorf("store credentials of push %s: %w", name, err)
	}
	return nil
}

const (
	maxNameBytes        = 63
	maxDescriptionRunes = 1000
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
	for _, wrong := range wayOf(spec).Check() {
		p.add("spec."+wrong.Field, "%s", wrong.Text)
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
