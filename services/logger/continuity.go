package logger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/durable"
	"github.com/seed0419d559/syncline/services/logger/walsender"
)

// Codes of why a new change log was begun. They stand in the state's warnings and are stable.
const (
	newLogFirst        = "FIRST_START"
	newLogSystem       = "SYSTEM_CHANGED"
	newLogDatabase     = "DATABASE_CHANGED"
	newLogTimeline     = "TIMELINE_DIVERGED"
	newLogWAL          = "WAL_BEHIND_LOG"
	newLogSlotMissing  = "SLOT_MISSING"
	newLogSlotLost     = "SLOT_INVALIDATED"
	newLogSlotAhead    = "SLOT_AHEAD_OF_LOG"
	newLogPublications = "PUBLICATION_REPLACED"
	newLogDiverged     = "HISTORY_DIVERGED"
	newLogCorrupt      = "CHANGE_LOG_CORRUPT"
)

// lineage is what the change log's content came from, beyond what the log itself remembers. It is written before the
// first transaction is taken from there, so that content without a lineage, or of another one, proves nothing.
type lineage struct {
	LogID    string `json:"log_id"`
	System   string `json:"system_identifier"`
	Database string `json:"database"`
	// Timeline is the one on which everything in the log so far was written, together with its ancestors.
	Timeline int32 `json:"timeline"`
	// Publications are the OIDs of the publications that chose what is in the log.
	Publications [2]uint32 `json:"publications"`
}

// continuation is everything the decision rests on.
type continuation struct {
	empty   bool       // the log has never been set up
	logID   string     // of the log
	through change.LSN // the log's durable end
	known   *lineage   // as written by the last session, nil if there is none
	now     lineage    // as of now, with the log's id
	flushed change.LSN // end of the server's WAL
	history []walsender.Switch
	slot    slot
}

// discontinuity says why the log cannot be continued.
type discontinuity struct {
	code string
	text string
}

// broken returns why the log cannot be continued, nil when it can: the slot delivers everything that committed after the
// log's end, in the same history.
func (c *continuation) broken() *discontinuity {
	because := func(code, format string, args ...any) *discontinuity {
		return &discontinuity{code: code, text: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.empty && c.slot.exists:
		return because(newLogFirst, "there was no change log in the directory (--data), although its slot was there: the log was lost, or is in another directory")
	case c.empty:
		return because(newLogFirst, "there was no change log")
	case c.known == nil || c.known.LogID != c.logID:
		return because(newLogSystem, "where the change log's content came from is not recorded")
	case c.known.System != c.now.System:
		return because(newLogSystem, "the server is another one: system identifier %s, the change log is of %s", c.now.System, c.known.System)
	case c.known.Database != c.now.Database:
		return because(newLogDatabase, "the database is %s, the change log is of %s", c.now.Database, c.known.Database)
	case c.known.Publications != c.now.Publications:
		return because(newLogPublications, "the publications were dropped and made again: changes in between were not captured")
	case !c.timelineContains():
		return because(newLogTimeline, "timeline %d of the server does not contain position %v of the change log, which was written on timeline %d",
			c.now.Timeline, c.through, c.known.Timeline)
	case c.flushed < c.through:
		return because(newLogWAL, "the server's WAL ends at %v, before the change log's end %v: the server was restored from a backup", c.flushed, c.through)
	case !c.slot.exists:
		return because(newLogSlotMissing, "the replication slot was dropped: changes since then were not captured")
	case c.slot.lost:
		return because(newLogSlotLost, "the replication slot was invalidated (%s): changes since then were not captured", c.slot.cause)
	case c.slot.confirmed == 0 || c.slot.confirmed > c.through:
		return because(newLogSlotAhead, "the replication slot is at %v, after the change log's end %v: changes in between are not in the log", c.slot.confirmed, c.through)
	}
	return nil
}

// timelineContains tells whether the log's end lies in the history of the server's timeline.
func (c *continuation) timelineContains() bool {
	if c.known.Timeline == c.now.Timeline {
		return true
	}
	for _, s := range c.history {
		if s.Timeline == c.known.Timeline {
			return c.through <= s.At
		}
	}
	return false
}

const lineageFile = "lineage.json"

// readLineage returns nil when there is none.
func readLineage(dir string) (*lineage, error) {
	text, err := os.ReadFile(filepath.Join(dir, lineageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the change log's lineage: %w", err)
	}
	var l lineage
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove the file to begin a new change log", filepath.Join(dir, lineageFile), err)
	}
	return &l, nil
}

// writeLineage replaces the file in one step; it is on disk when it returns.
func writeLineage(dir string, l lineage) error {
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("write the change log's lineage: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, lineageFile), text); err != nil {
		return fmt.Errorf("write the change log's lineage: %w", err)
	}
	return nil
}
