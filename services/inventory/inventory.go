package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// positionTimeout bounds how long an inventory waits for the logger, whose position is a help in it and no more.
const positionTimeout = 2 * time.Second

// GetInventory implements the method of that name. Its answer may be larger than 4 MiB: call it with rpc.LargeAnswer.
func (s *Service) GetInventory(ctx context.Context, request *inventoryv1.GetInventoryRequest) (_ *inventoryv1.GetInventoryResponse, err error) {
	selection, err := schema.ParseSelection(request.GetTables().GetInclude(), request.GetTables().GetExclude())
	if err != nil {
		return nil, rpc.Invalid("tables", "%v", err)
	}
	ctx, end := span(ctx, "read inventory")
	defer end(&err)
	only, err := s.usedSet(ctx, request.GetSet(), request.GetParameters(), 0)
	if err != nil {
		return nil, err
	}
	version := int64(0)
	if only != nil {
		if !selection.All() {
			return nil, rpc.Invalid("tables", "a set has been named, which selects the tables")
		}
		selection, version = only.definition.Selection(), only.version
	}
	db, selectors, around, err := s.readSchema(ctx, selection, only, request.GetAfterXid())
	if err != nil {
		return nil, fmt.Errorf("get inventory: %w", err)
	}
	descriptors, err := json.Marshal(db)
	if err != nil {
		return nil, fmt.Errorf("get inventory: write descriptors: %w", err)
	}
	answer := &inventoryv1.GetInventoryResponse{
		ServerId: s.config.ServerID, PostgresVersion: int32(db.ServerVersion), Descriptors: descriptors, SetVersion: version,
		Settings: settingsProto(around.settings), SnapshotProblem: around.snapshotProblem,
	}
	for _, t := range db.Tables {
		table := tableProto(t)
		table.Rows, table.GrantSql = selectors[t.FullName()], around.grants[t.OID]
		answer.Tables = append(answer.Tables, table)
	}
	for _, skipped := range db.NotReplicated {
		answer.NotReplicated = append(answer.NotReplicated, &inventoryv1.NotReplicated{Kind: skipped.Kind, Name: skipped.Name, Reason: skipped.Reason})
	}
	if request.GetIncludeSystem() {
		system, err := s.readSystem(ctx)
		if err != nil {
			return nil, fmt.Errorf("get inventory: %w", err)
		}
		answer.Tables = append(answer.Tables, system...)
	}
	addDetails(db, answer)
	asking, cancel := context.WithTimeout(ctx, positionTimeout)
	defer cancel()
	state, err := s.logger.GetState(asking, &loggerv1.GetStateRequest{Set: request.GetSet(), Parameters: request.GetParameters()})
	var position change.Position
	if err == nil {
		position, err = positionOf(state, s.config.ServerID)
	}
	if err != nil {
		s.config.Log.Debug("inventory without a position", "error", err)
		return answer, nil
	}
	answer.Position = &changev1.Position{LogId: position.LogID.String(), Lsn: uint64(position.LSN)}
	addCaptured(db, answer.GetTables(), state)
	return answer, nil
}

// readSchema describes the selected tables. A selection that names something unknown is ErrNoSuchTable, but for that of a set, whose
// selectors are told too. What the transaction afterXID did is seen.
func (s *Service) readSchema(ctx context.Context, selection schema.Selection, only *set, afterXID uint32) (db schema.Database, selectors map[schema.Name]string, around surroundings, err error) {
	conn, err := connect(ctx, s.config.PostgresURL)
	if err != nil {
		return db, nil, around, err
	}
	defer closeSession(conn.PgConn())
	if afterXID != 0 {
		if err := postgres.AwaitEnd(ctx, conn, afterXID); err != nil {
			return db, nil, around, explain(ctx, err)
		}
	}
	if db, err = schema.Read(ctx, conn, selection); err != nil {
		return db, nil, around, explain(ctx, err)
	}
	if only != nil {
		db.NotReplicated = slices.DeleteFunc(db.NotReplicated, func(skipped schema.Skipped) bool { return !selection.Matches(skipped.Relation) })
		selectors, err = only.selectors(ctx, conn, &db)
		if err != nil {
			return db, nil, around, err
		}
		around, err = readSurroundings(ctx, conn, db)
		return onlyOwn(db), selectors, around, explain(ctx, err)
	}
	if err := db.Check(selection); err != nil {
		var unknown *schema.UnknownTablesError
		if errors.As(err, &unknown) {
			return db, nil, around, fmt.Errorf("%w: %w", ErrNoSuchTable, err)
		}
		return db, nil, around, err
	}
	around, err = readSurroundings(ctx, conn, db)
	return db, nil, around, explain(ctx, err)
}

// kinds are the words of the API for those of descriptors.
var kinds = map[string]string{schema.KindOrdinary: "table", schema.KindPartitioned: "partitioned", schema.KindLeaf: "partition"}

func tableProto(t schema.Table) *inventoryv1.Table {
	p := &inventoryv1.Table{
		Oid: t.OID, Schema: t.Schema, Name: t.Name, Kind: kinds[t.Kind],
		IdentityColumns: t.IdentityColumns, ReplicaIdentity: t.ReplicaIdentity,
		EstimatedRows: t.EstimatedRows, Bytes: t.EstimatedBytes, Pages: t.Pages,
		Indexes: int32(len(t.Indexes)), Constraints: int32(len(t.Constraints)),
	}
	if t.IsPartition() && len(t.Parents) > 0 {
		p.Parent = t.Parents[0].SQL()
	}
	for _, c := range t.Columns {
		p.Columns = append(p.Columns, &inventoryv1.Column{Name: c.Name, Type: c.Type, NotNull: c.NotNull, Generated: c.Generated != ""})
	}
	return p
}
