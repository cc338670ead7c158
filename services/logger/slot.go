package logger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
)

// slot is the replication slot as pg_replication_slots shows it.
type slot struct {
	exists    bool
	plugin    string
	kind      string // "logical" or "physical"
	database  string
	temporary bool
	active    bool
	pid       uint32     // of the walsender that uses it, when active
	confirmed change.LSN // 0 while it is being created
	lost      bool       // invalidated: its WAL is gone, or it was idle for too long
	cause     string     // why it is lost, as far as the server tells
}

// readSlot goes through jsonb because the view's columns differ between versions: invalidation_reason is known from 17.
func readSlot(ctx context.Context, conn *pgx.Conn, name string) (slot, error) {
	var raw []byte
	err := conn.QueryRow(ctx, "SELECT to_jsonb(s) FROM pg_replication_slots s WHERE slot_name = $1", name).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return slot{}, nil
	}
	if err != nil {
		return slot{}, fmt.Errorf("read slot %s: %w", name, err)
	}
	return parseSlot(raw)
}

func parseSlot(raw []byte) (slot, error) {
	var view struct {
		Plugin             string  `json:"plugin"`
		SlotType           string  `json:"slot_type"`
		Database           string  `json:"database"`
		Temporary          bool    `json:"temporary"`
		Active             bool    `json:"active"`
		ActivePID          uint32  `json:"active_pid"`
		ConfirmedFlushLSN  *string `json:"confirmed_flush_lsn"`
		WALStatus          string  `json:"wal_status"`
		InvalidationReason string  `json:"invalidation_reason"`
	}
	if err := json.Unmarshal(raw, &view); err != nil {
		return slot{}, fmt.Errorf("read slot: %w", err)
	}
	s := slot{
		exists: true, plugin: view.Plugin, kind: view.SlotType, database: view.Database, temporary: view.Temporary,
		active: view.Active, pid: view.ActivePID,
		lost: view.WALStatus == "lost" || view.InvalidationReason != "", cause: view.InvalidationReason,
	}
	if s.lost && s.cause == "" {
		s.cause = "its WAL was removed, see max_slot_wal_keep_size"
	}
	if view.ConfirmedFlushLSN != nil {
		lsn, err := change.ParseLSN(*view.ConfirmedFlushLSN)
		if err != nil {
			return slot{}, fmt.Errorf("read slot: %w", err)
		}
		s.confirmed = lsn
	}
	return s, nil
}
