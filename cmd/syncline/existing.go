package main

import (
	"context"
	"maps"
	"slices"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// existing returns the replication of a name when it carries what spec says from where spec says, so that a create that is
// repeated does nothing; otherwise it returns refused, the error of the create.
func existing(ctx context.Context, client applierv1.ApplierServiceClient, name string, spec *applierv1.ReplicationSpec, refused error) (*applierv1.Replication, error) {
	answer, err := client.GetReplication(ctx, &applierv1.GetReplicationRequest{Name: name})
	if err != nil || !sameWork(answer.GetReplication().GetSpec(), spec) {
		return nil, refused
	}
	return answer.GetReplication(), nil
}

// sameWork leaves out how the first copy is made, which has no meaning once it is made.
func sameWork(a, b *applierv1.ReplicationSpec) bool {
	return a.GetSource() == b.GetSource() && a.GetInventory() == b.GetInventory() && a.GetSet() == b.GetSet() && a.GetShared() == b.GetShared() && maps.Equal(a.GetParameters(), b.GetParameters()) &&
		renameList{&a.Rename}.String() == renameList{&b.Rename}.String() &&
		sameNames(a.GetIncludeTables(), b.GetIncludeTables()) && sameNames(a.GetExcludeTables(), b.GetExcludeTables())
}

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
