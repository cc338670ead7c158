package logger

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// announcements is the table publish.Announcements as the stream describes it. Its rows are the logger's own words to followers;
// they become messages of the change log, and nothing else of the table is in there.
type announcements struct {
	oid                  uint32 // 0 before the stream has described it
	publication, content int    // columns; -1 for one that there is not
}

// describe takes a description of the table, and tells whether it is one.
func (a *announcements) describe(shape *change.Relation) bool {
	if shape.Schema != publish.Announcements.Schema || shape.Name != publish.Announcements.Name {
		if a.oid == shape.OID {
			a.oid = 0
		}
		return false
	}
	*a = announcements{oid: shape.OID, publication: -1, content: -1}
	for i, c := range shape.Columns {
		switch c.Name {
		case publish.ColumnPublication:
			a.publication = i
		case publish.ColumnContent:
			a.content = i
		}
	}
	return true
}

func (a *announcements) is(oid uint32) bool { return oid == a.oid && oid != 0 }

// announce makes an inserted row a message, if it is about this logger's publications. Nothing may depend on anything but the
// stream here: a transaction that is received again must become the same records.
func (f *feed) announce(ctx context.Context, operation block.Operation, row pgoutput.Tuple) error {
	if operation != block.Insert {
		return nil
	}
	var publication, content []byte
	i := 0
	for c := row.Columns(); c.More(); i++ {
		_, value := c.Next()
		switch i {
		case f.announcements.publication:
			publication = value
		case f.announcements.content:
			content = value
		}
	}
	if string(publication) != f.publication || content == nil {
		return nil
	}
	if err := f.takeIn(ctx); err != nil {
		return err
	}
	return inLog(f.appender.Message(ctx, publish.MessagePrefix, content, f.at))
}

// forgeries counts messages that look like announcements. Whoever may connect to the primary may emit as many as he likes.
type forgeries struct {
	log    *slog.Logger
	status *status
	told   time.Time // when it was last told
	since  int       // those since then
}

const forgeryInterval = time.Minute

// dropped notes one.
func (f *forgeries) dropped(xid uint32, lsn change.LSN, now time.Time) {
	f.since++
	if !f.told.IsZero() && now.Sub(f.told) < forgeryInterval {
		return
	}
	f.log.Warn("dropped messages that only the logger may write: somebody emits logical messages with its prefix",
		"prefix", publish.MessagePrefix, "count", f.since, "last_xid", xid, "last_lsn", lsn)
	f.status.warn(fmt.Sprintf("somebody on the primary emits logical messages with the prefix %s, which is the logger's own; they are dropped", publish.MessagePrefix))
	f.told, f.since = now, 0
}
