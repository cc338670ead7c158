package changelog

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// feed decides what of the fed stream is in the log already. Only the feeding goroutine uses it.
type feed struct {
	log     *Log
	through change.LSN // of the log when the appender was opened
	open    *openTail  // the transaction inside which it ended; nil once its rest was fed

	mode    feedMode
	begun   block.Begin // of the transaction being fed
	events  uint64      // of it, so far
	origins int         // since the last event
	remote  bool        // it has an origin
	logged  *transactions
}

type feedMode int

const (
	between   feedMode = iota // two transactions
	fresh                     // in one that is not in the log
	verified                  // in one that is in the log as a whole
	continued                 // in the one that is in the log in part
)

func (f *feed) begin(m block.Begin) (drop bool, err error) {
	if f.mode != between {
		return false, fmt.Errorf("%w: transaction %d begins inside transaction %d", ErrOrder, m.XID, f.begun.XID)
	}
	f.begun, f.events, f.origins, f.remote, f.mode = m, 0, 0, false, fresh
	switch {
	case m.CommitLSN < f.through:
		f.mode = verified
		return true, nil
	case f.open == nil:
		return false, nil
	case f.open.Begin != m:
		return false, fmt.Errorf("%w: the log ends inside transaction %d that commits at %v, and transaction %d that commits at %v was sent",
			ErrDiverged, f.open.XID, f.open.CommitLSN, m.XID, m.CommitLSN)
	}
	f.mode = continued
	return true, nil
}

// event counts a row event. One of those with which the log ends is compared with the one in the log: only their number says
// where feeding goes on, and the server may decode a transaction another way the next time, when it began before its table was
// published.
func (f *feed) event(compare func(*block.Replay) error) (drop bool, err error) {
	f.events++
	f.origins = 0
	switch f.mode {
	case between:
		return false, fmt.Errorf("%w: a change outside a transaction", ErrOrder)
	case fresh:
		return false, nil
	case verified:
		return true, nil
	}
	if f.events > f.open.Events {
		return false, nil
	}
	if f.events > f.open.compared {
		err := compare(f.open.replay)
		if errors.Is(err, block.ErrReplay) {
			err = fmt.Errorf("%w: change %d of transaction %d: %w", ErrDiverged, f.events, f.begun.XID, err)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

func (f *feed) origin() (drop bool, err error) {
	f.origins++
	f.remote = true
	switch f.mode {
	case between:
		return false, fmt.Errorf("%w: an origin outside a transaction", ErrOrder)
	case fresh:
		return false, nil
	case verified:
		return true, nil
	}
	if f.events != f.open.Events {
		return f.events < f.open.Events, nil
	}
	// What stands between the last event in the log and the next one may be there too. The beginning of the next one is
	// there only when all of that is.
	return f.origins <= f.open.origins || f.open.Piece.Bytes > 0, nil
}

func (f *feed) commit(ctx context.Context, m block.Commit) (drop bool, err error) {
	mode := f.mode
	f.mode = between
	switch {
	case mode == between:
		return false, fmt.Errorf("%w: a commit outside a transaction", ErrOrder)
	case m.CommitLSN != f.begun.CommitLSN:
		return false, fmt.Errorf("%w: transaction %d began to commit at %v and commits at %v", ErrOrder, m.XID, f.begun.CommitLSN, m.CommitLSN)
	case mode == verified:
		return true, f.verify(ctx, m)
	case mode == continued:
		if logged := f.open.Events; f.events < logged || f.events == logged && f.open.Piece.Bytes > 0 {
			return false, fmt.Errorf("%w: transaction %d has %d changes, and the log has more of it", ErrDiverged, m.XID, f.events)
		}
		f.open = nil
	}
	return false, nil
}

// mark drops a mark while the rest of a transaction is outstanding that may end before it.
func (f *feed) mark() (drop bool, err error) {
	if f.mode != between {
		return false, fmt.Errorf("%w: a mark inside a transaction", ErrOrder)
	}
	return f.open != nil, nil
}

// verify compares a transaction that was fed again with the one in the log. One from before the log's start cannot be
// compared any more, and one with an origin need not be there: whoever feeds may leave such out, now and then.
func (f *feed) verify(ctx context.Context, m block.Commit) error {
	v := f.log.ledger.view()
	if m.CommitLSN < v.start {
		return nil
	}
	if f.logged == nil {
		f.logged = &transactions{log: f.log}
	}
	got, err := f.logged.at(ctx, &v, m.CommitLSN)
	if errors.Is(err, ErrPurged) {
		f.logged = nil
		return nil
	}
	if err != nil {
		return err
	}
	if f.remote && got.CommitLSN != m.CommitLSN {
		return nil // it was left out when it was sent before
	}
	if got != m {
		return fmt.Errorf("%w: transaction %d, commit %v to %v at %v, was sent; the log has transaction %d, commit %v to %v at %v", ErrDiverged,
			m.XID, m.CommitLSN, m.EndLSN, m.CommitTime.Time(), got.XID, got.CommitLSN, got.EndLSN, got.CommitTime.Time())
	}
	return nil
}

// transactions reads the commits in a log, forward.
type transactions struct {
	log    *Log
	block  *block.Block
	reader block.Reader
	record block.Record
}

// at returns the commit of the first transaction that commits at or after the LSN; the zero Commit if there is none. The LSN
// must not be smaller than in the call before.
func (t *transactions) at(ctx context.Context, v *view, lsn change.LSN) (block.Commit, error) {
	if t.block == nil {
		h, err := t.log.search(ctx, v, lsn)
		if err != nil || h == nil {
			return block.Commit{}, err
		}
		if err := t.open(ctx, h.Number); err != nil {
			return block.Commit{}, err
		}
	}
	if c := &t.record.Commit; t.record.Kind == block.KindCommit && c.CommitLSN >= lsn {
		return *c, nil
	}
	for {
		ok, err := t.next()
		if err != nil {
			return block.Commit{}, err
		}
		if ok {
			if c := t.record.Commit; c.CommitLSN >= lsn {
				return c, nil
			}
			continue
		}
		if t.block.Number >= v.last.Number {
			return block.Commit{}, nil
		}
		if err := t.open(ctx, t.block.Number+1); err != nil {
			return block.Commit{}, err
		}
	}
}

func (t *transactions) open(ctx context.Context, number uint64) (err error) {
	t.block, err = t.log.Read(ctx, number)
	if err != nil {
		return err
	}
	t.reader, t.record.Kind = t.block.Reader(), 0
	return nil
}

// next reads on to the next commit in the block.
func (t *transactions) next() (bool, error) {
	if t.block.Transactions == 0 {
		return false, nil
	}
	for {
		ok, err := t.reader.Next(&t.record)
		if err != nil || !ok {
			t.record.Kind = 0
			return false, err
		}
		if t.record.Kind == block.KindCommit {
			return true, nil
		}
	}
}
