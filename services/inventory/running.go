package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// writer is a transaction that holds an id: it has written something, in whichever database of the server.
type writer struct {
	xid   uint64
	pid   int32  // 0 for a prepared transaction
	who   string // application and user; may be empty where the role may not see it
	gid   string // name of a prepared transaction
	since time.Time
}

// writersQuery reads pg_locks, because every transaction holds a lock on its own ids there and every role may see it;
// pg_stat_activity hides the ids of other users' sessions from a role without pg_read_all_stats.
const writersQuery = `
SELECT l.transactionid::text::int8, coalesce(l.pid, 0), l.granted,
       concat_ws(' as ', nullif(a.application_name, ''), coalesce(a.usename::text, p.owner::text)),
       coalesce(p.gid, ''), coalesce(a.xact_start, p.prepared), pg_snapshot_xmax(pg_current_snapshot())::text::int8
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = l.transactionid
WHERE l.locktype = 'transactionid' AND (l.granted AND l.mode = 'ExclusiveLock' OR l.pid = $1)`

// readWriters lists the writing transactions of the whole server, oldest id first, and the id that the session
// waiter waits for, 0 if none. A transaction is listed once, under its top-level id: the lowest that its session holds.
func readWriters(ctx context.Context, conn *pgx.Conn, waiter uint32) (writers []writer, waitedFor uint64, err error) {
	rows, err := conn.Query(ctx, writersQuery, int64(waiter))
	if err != nil {
		return nil, 0, fmt.Errorf("list running transactions: %w", err)
	}
	sessions := make(map[int32]int)
	var w writer
	var xid, next int64
	var granted bool
	var since *time.Time
	_, err = pgx.ForEachRow(rows, []any{&xid, &w.pid, &granted, &w.who, &w.gid, &since, &next}, func() error {
		w.xid, w.since = widen(uint32(xid), uint64(next)), time.Time{}
		if since != nil {
			w.since = *since
		}
		switch i, seen := sessions[w.pid]; {
		case !granted:
			waitedFor = w.xid
		case w.pid == 0 && w.gid == "": // a subtransaction of a prepared one, which is listed itself
		case w.pid != 0 && seen:
			writers[i].xid = min(writers[i].xid, w.xid)
		default:
			sessions[w.pid] = len(writers)
			writers = append(writers, w)
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list running transactions: %w", err)
	}
	slices.SortFunc(writers, func(a, b writer) int { return cmp.Compare(a.xid, b.xid) })
	return writers, waitedFor, nil
}

// widen makes a transaction id of 64 bits from one of 32: the one that is closest to near.
func widen(xid uint32, near uint64) uint64 {
	return near + uint64(int64(int32(xid-uint32(near))))
}

func (w writer) proto() *inventoryv1.RunningTransaction {
	t := &inventoryv1.RunningTransaction{Xid: w.xid, Pid: w.pid, Who: w.who}
	if w.gid != "" {
		t.Who = w.gid
	}
	if !w.since.IsZero() {
		t.StartTime = timestamppb.New(w.since)
	}
	return t
}

func (w writer) String() string {
	text := "transaction " + strconv.FormatUint(w.xid, 10)
	switch {
	case w.gid != "":
		text += fmt.Sprintf(" (prepared as %q", w.gid)
	case w.pid != 0:
		text += fmt.Sprintf(" (pid %d", w.pid)
	default:
		return text
	}
	if w.who != "" {
		text += ", " + w.who
	}
	if !w.since.IsZero() {
		text += ", since " + w.since.UTC().Format(time.RFC3339)
	}
	return text + ")"
}

// wayOut tells how to end a writer.
func (w writer) wayOut() string {
	switch {
	case w.gid != "":
		return "COMMIT PREPARED or ROLLBACK PREPARED " + postgres.Literal(w.gid)
	case w.pid != 0:
		return fmt.Sprintf("SELECT pg_terminate_backend(%d)", w.pid)
	}
	return ""
}

// waitList keeps what a slot waits for while it is made: the writers that ran when a phase of it began. PostgreSQL waits
// for them one after the other, and then once more for those that began in the meantime.
type waitList struct {
	xids map[uint64]struct{}
}

// update takes what is running now and what is waited for, and returns the writers that are still waited for.
func (l *waitList) update(writers []writer, waitedFor uint64) []writer {
	if waitedFor == 0 {
		return nil
	}
	if _, known := l.xids[waitedFor]; !known {
		l.xids = make(map[uint64]struct{}, len(writers)+1)
		l.xids[waitedFor] = struct{}{}
		for _, w := range writers {
			l.xids[w.xid] = struct{}{}
		}
	}
	var left []writer
	for _, w := range writers {
		if _, waited := l.xids[w.xid]; waited {
			left = append(left, w)
		}
	}
	return left
}

// named returns the writers with the given ids, and a bare writer for an id that none of them has (one that has just
// ended, or a subtransaction).
func named(xids []uint64, writers []writer) []writer {
	found := make([]writer, 0, len(xids))
	for _, xid := range xids {
		i := slices.IndexFunc(writers, func(w writer) bool { return w.xid == xid })
		if i < 0 {
			found = append(found, writer{xid: xid})
			continue
		}
		found = append(found, writers[i])
	}
	return found
}
