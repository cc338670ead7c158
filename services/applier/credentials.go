package applier

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/peer"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// wayOf is what a replication says of the way to its source.
func wayOf(spec *applierv1.ReplicationSpec) peer.Way {
	return peer.Way{Token: spec.GetToken(), TLS: spec.GetTls(), Proxy: spec.GetProxy()}
}

// withoutSecrets returns a copy of a replication's options as they may be shown and stored.
func withoutSecrets(spec *applierv1.ReplicationSpec) *applierv1.ReplicationSpec {
	shown, way := proto.CloneOf(spec), wayOf(spec).Shown()
	shown.Token, shown.Tls, shown.Proxy = way.Token, way.TLS, way.Proxy
	return shown
}

// addSecrets puts stored secrets back into options.
func addSecrets(spec *applierv1.ReplicationSpec, text []byte) error {
	way, err := wayOf(spec).WithSecrets(text)
	if err == nil {
		spec.Token, spec.Tls, spec.Proxy = way.Token, way.TLS, way.Proxy
	}
	return err
}

// storeSecrets stores what withoutSecrets leaves out of a replication's options. It belongs into the transaction that stores those.
func storeSecrets(ctx context.Context, q querier, replication string, spec *applierv1.ReplicationSpec) error {
	hidden, err := wayOf(spec).Secrets()
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
	for _, p := range wayOf(spec).Check() {
		return rpc.Invalid("spec."+p.Field, "%s", p.Text)
	}
	return nil
}

// connectionOptions are what a replication says about the connection to its source. They stand over those of the process.
func connectionOptions(spec *applierv1.ReplicationSpec) ([]rpc.DialOption, error) {
	options, err := wayOf(spec).Options()
	if err != nil {
		return nil, err
	}
	return append(options, refusals(), rpc.WithFlags("source-", "`syncline replica`")), nil
}
