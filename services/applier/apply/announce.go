package apply

import (
	"encoding/json"
	"fmt"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/schema"
)

// tablesPrefix marks the message with which a logger says, in the transaction that does it, which tables it captures from
// then on and which no longer.
const tablesPrefix = "syncline.tables"

// announcement is the content of such a message. Captured holds tables of which nothing was captured before, Joined partitions of a table
// that is captured, of which a copy is missing or right.
type announcement struct {
	Captured   []announcedTable `json:"captured"`
	InsertOnly []announcedTable `json:"insert_only"`
	Joined     []announcedTable `json:"joined"`
	Removed    []announcedTable `json:"removed"`
}

type announcedTable struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

func (t announcedTable) name() schema.Name { return schema.Name{Schema: t.Schema, Name: t.Name} }

// message stops at a transaction from which on tables are captured that have no copy, or one from before: what happened to
// them in between is not in the stream.
func (e *Engine) message(m *block.Message) error {
	if m.Prefix != tablesPrefix {
		return nil
	}
	var a announcement
	if err := json.Unmarshal(m.Content, &a); err != nil {
		return fmt.Errorf("read the source's message about its tables: %w", err)
	}
	var removed []schema.Name
	for _, t := range a.Removed {
		removed = append(removed, t.name())
	}
	if len(removed) > 0 {
		e.config.Removed(removed)
	}
	missing := e.newTable()
	for _, list := range [][]announcedTable{a.Captured, a.InsertOnly} {
		for _, t := range list {
			if e.config.Captured(t.name(), missing.LSN) {
				missing.add(t.name(), t.OID)
			}
		}
	}
	for _, t := range a.Joined {
		if _, lacks := e.lookUp(t.name(), t.OID); lacks {
			missing.add(t.name(), t.OID)
		}
	}
	if len(missing.Tables) > 0 {
		return missing
	}
	return nil
}
