package inventory

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// slotPrefix begins the name of every slot of this service. They are temporary: they end with their session.
const slotPrefix = "syncline_snapshot_"

// slot is a temporary replication slot whose snapshot is exported until the next command of its session.
type slot struct {
	conn *pgconn.PgConn
	name string
	// point is where decoding from this slot would begin: exactly the transactions whose commit ends at or before it
	// are in the snapshot.
	point    change.LSN
	exported string
}

// createSlot makes a slot in a walsender session. It returns only when the transactions that were writing have ended; when
// ctx ends before, the session is cancelled on the server and the half-made slot goes with it.
func createSlot(ctx context.Context, conn *pgconn.PgConn) (slot, error) {
	name := slotPrefix + randomHex(8)
	results, err := conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+postgres.Ident(name)+" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')").ReadAll()
	if err != nil {
		return slot{}, fmt.Errorf("create replication slot %s: %w", name, err)
	}
	// slot_name, consistent_point, snapshot_name, output_plugin
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 || results[0].Rows[0][2] == nil {
		return slot{}, fmt.Errorf("create replication slot %s: unexpected answer of the server", name)
	}
	row := results[0].Rows[0]
	point, err := change.ParseLSN(string(row[1]))
	if err != nil {
		return slot{}, fmt.Errorf("create replication slot %s: consistent point: %w", name, err)
	}
	return slot{conn: conn, name: name, point: point, exported: string(row[2])}, nil
}

// slotError gives the sentinel to an error of createSlot.
func slotError(ctx context.Context, err error, user string) error {
	switch code := postgres.Code(err); {
	case code == codeSlotsFull:
		return noRoom("max_replication_slots", "drop replication slots that nobody uses (pg_replication_slots), or ")
	case code == codeNoPrivilege:
		return noReplication(user)
	case code == codeNotInState && strings.Contains(serverText(err), "wal_level"):
		return fmt.Errorf("open snapshot: %w: run ALTER SYSTEM SET wal_level = logical and restart PostgreSQL", ErrNotLogical)
	}
	return fmt.Errorf("open snapshot: %w", explain(ctx, err))
}

// drop removes the slot and ends its session. Whoever has imported its snapshot by then keeps it.
func (s slot) drop(ctx context.Context) {
	_, _ = s.conn.Exec(ctx, "DROP_REPLICATION_SLOT "+postgres.Ident(s.name)+" WAIT").ReadAll() // it goes with the session in any case
	closeSession(s.conn)
}

// randomHex is n random bytes in hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
