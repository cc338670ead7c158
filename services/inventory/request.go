package inventory

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// tableRequest is a request about one table as of a snapshot.
type tableRequest interface {
	GetSnapshotId() string
	GetSchema() string
	GetTable() string
	GetSet() string
	GetParameters() map[string]string
	GetSetVersion() int64
}

// tableOf is the table that a request is about. what begins an error about it, as in "dump".
func tableOf(what string, request tableRequest) (schema.Name, error) {
	name := schema.Name{Schema: request.GetSchema(), Name: request.GetTable()}
	switch {
	case request.GetSnapshotId() == "":
		return name, rpc.Invalid("snapshot_id", "is missing: open a snapshot first")
	case name.Schema == "":
		return name, rpc.Invalid("schema", "is missing")
	case name.Name == "":
		return name, rpc.Invalid("table", "is missing")
	case strings.ContainsRune(name.Schema+name.Name, 0):
		return name, rpc.Invalid("table", "no name in PostgreSQL holds a zero byte")
	case schema.IsSystemSchema(name.Schema):
		return name, fmt.Errorf("%s table %s: %w: schema %s belongs to PostgreSQL or Syncline itself", what, name, ErrNotATable, name.Schema)
	}
	return name, nil
}

// readTable runs a call that reads a table from a snapshot, as far as the table is in the set of the request.
func (s *Service) readTable(ctx context.Context, what string, request tableRequest, run func(ctx context.Context, l *lease, only *set) error) (err error) {
	name := schema.Name{Schema: request.GetSchema(), Name: request.GetTable()}
	ctx, end := span(ctx, what, attribute.String("db.collection.name", name.String()))
	defer end(&err)
	only, err := s.usedSet(ctx, request.GetSet(), request.GetParameters(), request.GetSetVersion())
	if err != nil {
		return err
	}
	err = s.reading(ctx, request.GetSnapshotId(), func(ctx context.Context, l *lease) error { return run(ctx, l, only) })
	if err != nil {
		return fmt.Errorf("%s table %s: %w", what, name, err)
	}
	return nil
}
