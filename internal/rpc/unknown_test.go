package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// TestZeroBytes are refused wherever they stand, by the name of the field.
func TestZeroBytes(t *testing.T) {
	for want, spec := range map[string]*applierv1.ReplicationSpec{
		"spec.source":            {Source: "a\x00"},
		"spec.include_tables[1]": {IncludeTables: []string{"a", "\x00"}},
		"spec.parameters":        {Parameters: map[string]string{"\x00": "x"}},
		"spec.parameters[org]":   {Parameters: map[string]string{"org": "\x00"}},
		"spec.tls.ca":            {Tls: &accessv1.ClientTLS{Ca: "\x00"}},
		"":                       {Source: "a\n\u00ff", Parameters: map[string]string{"org": "7"}},
	} {
		err := refuseUnknown(&applierv1.CreateReplicationRequest{Spec: spec})
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if fields := Fields(err); Code(err) != codes.InvalidArgument || len(fields) != 1 || fields[0].GetField() != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}
