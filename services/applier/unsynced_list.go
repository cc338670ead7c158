package applier

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	defaultUnsyncedPage = 100
	maxUnsyncedPage     = 1000
	defaultValueBytes   = 64 << 10
	maxValuesBytes      = 3 << 20 // of one answer
	keyValueBytes       = 80
)

// ListUnsynced lists what is not in the target.
func (s *Service) ListUnsynced(ctx context.Context, in *applierv1.ListUnsyncedRequest) (*applierv1.ListUnsyncedResponse, error) {
	r, err := s.runner(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(in.GetPageSize(), defaultUnsyncedPage, maxUnsyncedPage)
	if err != nil {
		return nil, err
	}
	table, err := tableOf(in.GetTable())
	if err != nil {
		return nil, err
	}
	var after int64
	if token, err := readToken(in.GetPageToken(), unsyncedOrder); err != nil {
		return nil, err
	} else if token != "" {
		if after, err = strconv.ParseInt(token, 10, 64); err != nil {
			return nil, rpc.Invalid("page_token", "is not the next_page_token of an answer to the same question")
		}
	}
	list, err := s.store.unsynced(ctx, in.GetName(), unsyncedFilter{after: after, table: table, limit: size + 1})
	if err != nil {
		return nil, err
	}
	out := &applierv1.ListUnsyncedResponse{Changes: list}
	if len(list) > size {
		out.Changes = list[:size]
		out.NextPageToken = writeToken(unsyncedOrder, strconv.FormatInt(list[size-1].GetId(), 10))
	}
	now := r.status.proto(r.snapshot(), false)
	out.QuarantinedChanges, out.WaitingChanges, out.LagBytes = now.GetQuarantinedChanges(), now.GetWaitingChanges(), now.GetLagBytes()
	if now.LagSeconds != nil && now.GetLagBytes() > 0 {
		out.LagSince = timestamppb.New(time.Now().Add(-time.Duration(now.GetLagSeconds() * float64(time.Second))))
	}
	return out, nil
}

// unsyncedFilter chooses changes in quarantine: one id, or those after an id, of a table or of all.
type unsyncedFilter struct {
	id, after int64
	table     *schema.Name
	limit     int
}

// unsynced reads changes in quarantine, in their order, with their keys and without other values.
func (s *store) unsynced(ctx context.Context, replication string, f unsyncedFilter) ([]*applierv1.Unsynced, error) {
	var table schema.Name
	if f.table != nil {
		table = *f.table
	}
	rows, err := s.pool.Query(ctx, `SELECT id, schema_name, table_name, target_schema, target_table, operation, log_id, commit_lsn::text, number, commit_time, set_aside_at,
			coalesce(waits_behind, 0), sqlstate, constraint_name, message, attempts, bytes FROM syncline.quarantine
		WHERE replication = $1 AND ($2::bigint = 0 OR id = $2) AND id > $3 AND ($5 = '' OR schema_name = $4 AND table_name = $5) ORDER BY id LIMIT $6`,
		replication, f.id, f.after, table.Schema, table.Name, f.limit)
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	list, err := pgx.CollectRows(rows, scanUnsynced)
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	return list, addKeys(ctx, s.pool, list)
}

func scanUnsynced(row pgx.CollectableRow) (*applierv1.Unsynced, error) {
	c := &applierv1.Unsynced{}
	var operation, lsn string
	var committed int64
	var at time.Time
	if err := row.Scan(&c.Id, &c.Schema, &c.Table, &c.TargetSchema, &c.TargetTable, &operation, &c.LogId, &lsn, &c.ChangeNumber, &committed, &at,
		&c.WaitsBehind, &c.Sqlstate, &c.Constraint, &c.Message, &c.Attempts, &c.Bytes); err != nil {
		return nil, err
	}
	commitLSN, err := change.ParseLSN(lsn)
	if err != nil {
		return nil, err
	}
	commitTime := change.Timestamp(committed).Time()
	c.CommitLsn, c.Operation, c.Reason = uint64(commitLSN), unsyncedOperations[operation], applierv1.UnsyncedReason_UNSYNCED_REASON_QUARANTINED
	c.CommitTime, c.QuarantineTime, c.Age = timestamppb.New(commitTime), timestamppb.New(at), durationpb.New(max(0, time.Since(commitTime)).Truncate(time.Second))
	if c.GetWaitsBehind() != 0 {
		c.Reason = applierv1.UnsyncedReason_UNSYNCED_REASON_WAITING
		c.Message = fmt.Sprintf("waits behind #%d", c.GetWaitsBehind())
	}
	return c, nil
}

// addKeys says which rows changes are about: by the old key where it is sent, as it is the one that the target has.
func addKeys(ctx context.Context, q querier, list []*applierv1.Unsynced) error {
	byID := make(map[int64]*applierv1.Unsynced, len(list))
	for _, c := range list {
		byID[c.GetId()] = c
	}
	rows, err := q.Query(ctx, `SELECT q.id, q.relation->'columns'->v.ordinal->>'name', v.kind, substring(v.value FOR $2), octet_length(v.value) > $2
		FROM syncline.quarantine q JOIN syncline.quarantine_values v ON v.entry = q.id AND v.old = q.has_old AND v.ordinal = ANY (q.locator)
		WHERE q.id = ANY ($1) ORDER BY q.id, v.ordinal`, idsOf(list), keyValueBytes)
	if err != nil {
		return fmt.Errorf("read keys of changes in quarantine: %w", err)
	}
	var id int64
	var name, kind string
	var text []byte
	var more *bool
	_, err = pgx.ForEachRow(rows, []any{&id, &name, &kind, &text, &more}, func() error {
		c := byID[id]
		if c.GetKey() != "" {
			c.Key += ", "
		}
		c.Key += name + "="
		switch kind {
		case "n":
			c.Key += "NULL"
		case "u":
			c.Key += "(unchanged)"
		default:
			c.Key += strings.ToValidUTF8(string(text), "")
		}
		if more != nil && *more {
			c.Key += "…"
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read keys of changes in quarantine: %w", err)
	}
	for _, c := range list {
		c.Key = "(" + c.GetKey() + ")"
	}
	return nil
}

// GetUnsynced returns one change with its values.
func (s *Service) GetUnsynced(ctx context.Context, in *applierv1.GetUnsyncedRequest) (*applierv1.GetUnsyncedResponse, error) {
	if _, err := s.runner(ctx, in.GetName()); err != nil {
		return nil, err
	}
	if in.GetValueBytes() < 0 || in.GetValueBytes() > maxValuesBytes {
		return nil, rpc.Invalid("value_bytes", "%d is not from 0 to %d", in.GetValueBytes(), maxValuesBytes)
	}
	if in.GetValueOffset() < 0 || in.GetValueOffset() > 1<<30 {
		return nil, rpc.Invalid("value_offset", "%d is not from 0 to %d", in.GetValueOffset(), 1<<30)
	}
	list, err := s.store.unsynced(ctx, in.GetName(), unsyncedFilter{id: in.GetId(), limit: 1})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || in.GetId() == 0 {
		return nil, rpc.Errorf(codes.NotFound, reasonNotUnsynced, "no change %d of replication %s is in quarantine; `syncline replication unsynced %s` lists those that are", in.GetId(), in.GetName(), in.GetName())
	}
	wanted := int64(defaultValueBytes)
	if n := in.GetValueBytes(); n > 0 {
		wanted = int64(n)
	}
	return &applierv1.GetUnsyncedResponse{Change: list[0]}, s.store.addValues(ctx, list[0], wanted, in.GetValueOffset())
}

// addValues adds the columns of a change with a part of each value.
func (s *store) addValues(ctx context.Context, c *applierv1.Unsynced, wanted, offset int64) error {
	var stored apply.StoredRelation
	var shape []byte
	if err := s.pool.QueryRow(ctx, "SELECT relation::text FROM syncline.quarantine WHERE id = $1", c.GetId()).Scan(&shape); err != nil {
		return fmt.Errorf("read change %d in quarantine: %w", c.GetId(), err)
	}
	if err := json.Unmarshal(shape, &stored); err != nil {
		return fmt.Errorf("read change %d in quarantine: %w", c.GetId(), err)
	}
	for _, column := range stored.Columns {
		c.Columns = append(c.Columns, &applierv1.UnsyncedColumn{
			Name: column.Name, TypeOid: column.TypeOID, TypeModifier: column.TypeModifier, TargetType: column.Type, Key: column.Key,
		})
	}
	wanted = min(wanted, maxValuesBytes/int64(2*max(len(c.GetColumns()), 1)))
	rows, err := s.pool.Query(ctx, "SELECT old, ordinal, kind, substring(value FROM $3::integer + 1 FOR $2::integer), coalesce(octet_length(value), 0) FROM syncline.quarantine_values WHERE entry = $1 ORDER BY old, ordinal",
		c.GetId(), wanted, offset)
	if err != nil {
		return fmt.Errorf("read values of change %d in quarantine: %w", c.GetId(), err)
	}
	keyOnly := stored.Identity != string(change.IdentityFull)
	var old bool
	var ordinal int
	var kind string
	var text []byte
	var size int64
	_, err = pgx.ForEachRow(rows, []any{&old, &ordinal, &kind, &text, &size}, func() error {
		if ordinal >= len(c.GetColumns()) {
			return fmt.Errorf("value %d is of no column", ordinal)
		}
		column := c.GetColumns()[ordinal]
		v := &applierv1.UnsyncedValue{Null: kind == "n", Unchanged: kind == "u", Text: append([]byte(nil), text...), Size: size}
		switch {
		case !old:
			column.NewValue = v
		case column.GetKey() || !keyOnly: // else nothing was sent of it
			column.OldValue = v
		}
		text = nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("read values of change %d in quarantine: %w", c.GetId(), err)
	}
	return nil
}
