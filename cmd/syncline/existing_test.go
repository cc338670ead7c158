package main

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// holder is an applier that has one replication.
type holder struct {
	applierv1.ApplierServiceClient
	spec *applierv1.ReplicationSpec
}

func (h holder) GetReplication(context.Context, *applierv1.GetReplicationRequest, ...grpc.CallOption) (*applierv1.GetReplicationResponse, error) {
	return &applierv1.GetReplicationResponse{Replication: &applierv1.Replication{Name: "shop", Spec: h.spec}}, nil
}

func TestExisting(t *testing.T) {
	refused := errors.New("there is such a replication already")
	there := &applierv1.ReplicationSpec{Source: "db1:7400", IncludeTables: []string{"a.*", "b.*"}}
	for name, c := range map[string]struct {
		spec *applierv1.ReplicationSpec
		same bool
	}{
		"the same":             {&applierv1.ReplicationSpec{Source: "db1:7400", IncludeTables: []string{"b.*", "a.*"}}, true},
		"copied another way":   {&applierv1.ReplicationSpec{Source: "db1:7400", IncludeTables: []string{"a.*", "b.*"}, Replace: true, CopyWorkers: 2, Compression: applierv1.Compression_COMPRESSION_ZSTD}, true},
		"another source":       {&applierv1.ReplicationSpec{Source: "db2:7400", IncludeTables: []string{"a.*", "b.*"}}, false},
		"another inventory":    {&applierv1.ReplicationSpec{Source: "db1:7400", Inventory: "db1:7401", IncludeTables: []string{"a.*", "b.*"}}, false},
		"other tables":         {&applierv1.ReplicationSpec{Source: "db1:7400", IncludeTables: []string{"a.*"}}, false},
		"fewer tables of them": {&applierv1.ReplicationSpec{Source: "db1:7400", IncludeTables: []string{"a.*", "b.*"}, ExcludeTables: []string{"a.b"}}, false},
	} {
		got, err := existing(t.Context(), holder{spec: there}, "shop", c.spec, refused)
		if c.same != (err == nil && got.GetName() == "shop") || !c.same && !errors.Is(err, refused) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}
