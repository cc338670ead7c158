package inventory

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// errView says that a text is not what pg_current_snapshot() prints.
var errView = errors.New("invalid snapshot text")

// view is what pg_current_snapshot() says about a snapshot. Transactions below xmin have ended for it, those at or above
// xmax have not begun, and of those between exactly the ones in running had not ended. The ids are 64 bits wide, so
// they are never reused.
type view struct {
	xmin, xmax uint64
	running    []uint64 // ascending
}

// parseView reads xmin:xmax:xid,xid,…; it returns errView for anything else.
func parseView(text string) (view, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return view{}, fmt.Errorf("%w %q: expected xmin:xmax:xids", errView, text)
	}
	var v view
	var errMin, errMax error
	v.xmin, errMin = strconv.ParseUint(parts[0], 10, 64)
	v.xmax, errMax = strconv.ParseUint(parts[1], 10, 64)
	if err := errors.Join(errMin, errMax); err != nil {
		return view{}, fmt.Errorf("%w %q: %w", errView, text, err)
	}
	if parts[2] == "" {
		return v, nil
	}
	for word := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return view{}, fmt.Errorf("%w %q: %w", errView, text, err)
		}
		v.running = append(v.running, xid)
	}
	slices.Sort(v.running)
	return v, nil
}

// ended tells whether a transaction had ended for the snapshot: its rows are judged by the commit log.
func (v view) ended(xid uint64) bool {
	if xid < v.xmin || xid >= v.xmax {
		return xid < v.xmin
	}
	_, found := slices.BinarySearch(v.running, xid)
	return !found
}

// mostNamed bounds how many transactions are listed by id: one with a million savepoints holds a million ids.
const mostNamed = 64

// unsettled returns the transactions that have ended for the snapshot but were still running when now was taken, at most
// mostNamed of them. While there is one, nobody may read a row with the snapshot.
//
// Why: a transaction commits in three steps: it writes its commit record, it marks itself committed in the commit log
// (pg_xact), and it leaves the list of running transactions. A snapshot taken the usual way comes from that list, so
// whoever is not running in it is in the commit log already. A slot's snapshot is built from decoded commit records
// instead, so it can hold a transaction as ended which has not reached the second step. A reader that meets a row of it finds
// that it is not running (by the snapshot), not committed (by the commit log), and concludes that it was aborted. It writes
// that conclusion into the row as a hint bit, and from then on the row is dead for everyone, although the transaction was
// committed: the row is missing from the copy, and lost on the primary.
//
// Leaving the list is the last step, so it is safe to read once everything that ended for the snapshot has also ended for
// a snapshot that was taken the usual way. The running list of that one is not enough to look at: it stops at its xmax,
// which is one above the newest transaction that has left. A transaction newer than all that have left is not in the list
// and yet still committing; with a single writer that is the usual case. So now.xmax must reach the snapshot's, too.
//
// The list holds top-level ids only. That is enough: the subtransactions of a transaction are in the commit log before it
// leaves the list, and the decoder takes the whole tree over at once.
func (v view) unsettled(now view) []uint64 {
	var xids []uint64
	for _, xid := range now.running {
		if v.ended(xid) && len(xids) < mostNamed {
			xids = append(xids, xid)
		}
	}
	for xid := now.xmax; xid < v.xmax && len(xids) < mostNamed; xid++ {
		if v.ended(xid) {
			xids = append(xids, xid)
		}
	}
	return xids
}
