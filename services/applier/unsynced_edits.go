package applier

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	mostEdits       = 1000 // of a replication that are kept
	defaultEditPage = 20
	maxEditPage     = 50
	// editValueBytes is what is kept of a value at most, and editBytes of all values of an edit.
	editValueBytes = 4 << 10
	editBytes      = 48 << 10
)

// keptValue is a value of an edit as it is stored.
type keptValue struct {
	Null      bool   `json:"null,omitempty"`
	Unchanged bool   `json:"unchanged,omitempty"`
	Text      []byte `json:"text,omitempty"`
	Size      int64  `json:"size,omitempty"`
}

func (v keptValue) proto() *applierv1.UnsyncedValue {
	return &applierv1.UnsyncedValue{Null: v.Null, Unchanged: v.Unchanged, Text: v.Text, Size: v.Size}
}

// keptColumn is a column of an edit as it is stored.
type keptColumn struct {
	Name    string    `json:"name"`
	Source  keptValue `json:"source"`
	Written keptValue `json:"written"`
}

// edited keeps what a user has had written in the place of the source's values, in the transaction that writes it.
func edited(in *applierv1.RetryUnsyncedRequest, caller *access.Principal) func(context.Context, pgx.Tx, int64) error {
	who := ""
	if caller != nil {
		who = caller.Name
	}
	return func(ctx context.Context, tx pgx.Tx, id int64) error {
		columns, err := keptColumns(ctx, tx, id, in.GetEdits())
		if err != nil {
			return fmt.Errorf("keep the edits of change %d: %w", id, err)
		}
		content, err := json.Marshal(columns)
		if err != nil {
			return fmt.Errorf("keep the edits of change %d: %w", id, err)
		}
		one := &applierv1.Unsynced{Id: id}
		if err := addKeys(ctx, tx, []*applierv1.Unsynced{one}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO syncline.unsynced_edits (replication, entry, principal, schema_name, table_name, operation, key, log_id, commit_lsn, columns)
			SELECT replication, id, $2, schema_name, table_name, operation, $3, log_id, commit_lsn, $4::text::jsonb FROM syncline.quarantine WHERE id = $1`,
			id, who, cleanText(one.GetKey()), string(content))
		if err == nil { // between two rounds of pruning nobody makes it grow
			_, err = tx.Exec(ctx, `DELETE FROM syncline.unsynced_edits WHERE id IN (SELECT id FROM syncline.unsynced_edits WHERE replication = $1 ORDER BY id DESC OFFSET $2)`, in.GetName(), mostEdits)
		}
		if err != nil {
			return fmt.Errorf("keep the edits of change %d: %w", id, err)
		}
		return nil
	}
}

// keptColumns are the edited columns, with the source's values and those that are written. Of a column that is named twice the last one counts.
func keptColumns(ctx context.Context, q querier, id int64, edits []*applierv1.UnsyncedEdit) ([]*keptColumn, error) {
	most := int64(min(editValueBytes, editBytes/(2*len(edits))))
	var columns []*keptColumn
	for _, e := range edits {
		text := []byte(e.GetText())
		written := keptValue{Null: e.GetNull(), Text: text[:min(int64(len(text)), most)], Size: int64(len(text))}
		if at := slices.IndexFunc(columns, func(c *keptColumn) bool { return c.Name == e.GetColumn() }); at >= 0 {
			columns[at].Written = written
			continue
		}
		columns = append(columns, &keptColumn{Name: e.GetColumn(), Written: written})
	}
	for _, c := range columns {
		var kind string
		err := q.QueryRow(ctx, `SELECT v.kind, substring(v.value FOR $3::integer), coalesce(octet_length(v.value), 0)
			FROM syncline.quarantine q JOIN syncline.quarantine_values v ON v.entry = q.id AND NOT v.old AND q.relation->'columns'->v.ordinal->>'name' = $2
			WHERE q.id = $1`, id, c.Name, most).Scan(&kind, &c.Source.Text, &c.Source.Size)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		c.Source.Null, c.Source.Unchanged = kind == "n", kind == "u"
	}
	return columns, nil
}

// pruneEdits removes what is too old, and of each replication what is beyond the number that is kept.
const pruneEdits = `DELETE FROM syncline.unsynced_edits WHERE edited_at < now() - make_interval(secs => $1)
	OR id IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY replication ORDER BY id DESC) AS nth FROM syncline.unsynced_edits) numbered WHERE nth > $2)`

// ListUnsyncedEdits returns a page of edits, the newest first.
func (s *Service) ListUnsyncedEdits(ctx context.Context, in *applierv1.ListUnsyncedEditsRequest) (*applierv1.ListUnsyncedEditsResponse, error) {
	size, err := pageSize(in.GetPageSize(), defaultEditPage, maxEditPage)
	if err != nil {
		return nil, err
	}
	before := int64(0)
	if token, err := readToken(in.GetPageToken(), "edits"); err != nil {
		return nil, err
	} else if token != "" {
		if before, err = strconv.ParseInt(token, 10, 64); err != nil {
			return nil, rpc.Invalid("page_token", "is not the next_page_token of an answer to the same question")
		}
	}
	list, err := s.store.editsBefore(ctx, in.GetName(), before, size+1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if err := s.everHeardOf(ctx, in.GetName()); err != nil {
			return nil, err
		}
	}
	out := &applierv1.ListUnsyncedEditsResponse{Edits: list}
	if len(list) > size {
		out.Edits = list[:size]
		out.NextPageToken = writeToken("edits", strconv.FormatInt(list[size-1].GetId(), 10))
	}
	return out, nil
}

func (s *store) editsBefore(ctx context.Context, replication string, before int64, limit int) ([]*applierv1.UnsyncedEdited, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, entry, principal, edited_at, schema_name, table_name, operation, key, log_id, commit_lsn::text, columns::text FROM syncline.unsynced_edits
		WHERE replication = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, replication, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list edits: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanEdit)
	return list, wrapUnlessNil(err, "list edits")
}

func scanEdit(row pgx.CollectableRow) (*applierv1.UnsyncedEdited, error) {
	e := &applierv1.UnsyncedEdited{}
	var at time.Time
	var operation, lsn, content string
	if err := row.Scan(&e.Id, &e.ChangeId, &e.Principal, &at, &e.Schema, &e.Table, &operation, &e.Key, &e.LogId, &lsn, &content); err != nil {
		return nil, err
	}
	commitLSN, err := change.ParseLSN(lsn)
	if err != nil {
		return nil, err
	}
	var columns []keptColumn
	if err := json.NewDecoder(strings.NewReader(content)).Decode(&columns); err != nil {
		return nil, err
	}
	e.Time, e.CommitLsn, e.Operation = timestamppb.New(at), uint64(commitLSN), unsyncedOperations[operation]
	for _, c := range columns {
		e.Columns = append(e.Columns, &applierv1.UnsyncedEditedColumn{Name: c.Name, SourceValue: c.Source.proto(), WrittenValue: c.Written.proto()})
	}
	return e, nil
}
