package logger

import (
	"time"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const maxFollowWait = time.Hour

// bounds say when a stream ends by itself.
type bounds struct {
	to      change.LSN // 0 for none
	limit   int64      // transactions; 0 for none
	wait    time.Duration
	hasWait bool // a wait of 0 is one

	transactions int64     // sent so far
	quiet        time.Time // since when nothing has come
}

func boundsOf(request *loggerv1.FollowRequest) (bounds, error) {
	b := bounds{to: change.LSN(request.GetToLsn()), limit: request.GetLimit(), hasWait: request.GetWait() != nil}
	if b.limit < 0 {
		return b, rpc.Invalid("limit", "it has to be 0 for no limit, or a number of transactions")
	}
	if b.hasWait {
		b.wait = request.GetWait().AsDuration()
		if err := request.GetWait().CheckValid(); err != nil || b.wait < 0 || b.wait > maxFollowWait {
			return b, rpc.Invalid("wait", "it has to be from 0 s to %v", maxFollowWait)
		}
	}
	return b, nil
}

// begin starts the first wait.
func (b *bounds) begin(now time.Time) { b.quiet = now }

// sent counts transactions, or a part of one when there are none.
func (b *bounds) sent(transactions int64, now time.Time) {
	b.transactions += transactions
	b.quiet = now
}

// reached tells whether to or the limit is reached after everything up to the position has been sent.
func (b *bounds) reached(sent change.LSN) bool {
	return b.to > 0 && sent >= b.to || b.limit > 0 && b.transactions >= b.limit
}

// waitEnd returns when the wait ends if nothing comes; false when there is none.
func (b *bounds) waitEnd() (time.Time, bool) { return b.quiet.Add(b.wait), b.hasWait }

// waited tells whether nothing has come for the whole wait.
func (b *bounds) waited(now time.Time) bool {
	end, ok := b.waitEnd()
	return ok && !now.Before(end)
}

// announced tells whether the client expects a last answer.
func (b *bounds) announced() bool { return b.limit > 0 || b.hasWait }
