package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
)

// OriginMessage is the content of the logical message syncline.origin, which says where a transaction first happened. Numbers are
// strings, as in the API's JSON.
func OriginMessage(server string, position change.Position, commitTime change.Timestamp) ([]byte, error) {
	message, err := json.Marshal(struct {
		ServerID   string `json:"server_id"`
		LogID      string `json:"log_id"`
		LSN        string `json:"lsn"`
		CommitTime string `json:"commit_time"`
	}{server, position.LogID.String(), strconv.FormatUint(uint64(position.LSN), 10), strconv.FormatInt(int64(commitTime), 10)})
	if err != nil {
		return nil, fmt.Errorf("write origin: %w", err)
	}
	return message, nil
}

// WriteOrigin writes that message into a transaction that is not the engine's, before its rows.
func WriteOrigin(ctx context.Context, tx pgx.Tx, server string, position change.Position, commitTime change.Timestamp) error {
	message, err := OriginMessage(server, position, commitTime)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, originSQL, string(message)); err != nil {
		return fmt.Errorf("write origin: %w", err)
	}
	return nil
}
