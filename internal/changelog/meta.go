package changelog

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// metaFormat is the version of the stored form of Meta, and of the log as a whole.
const metaFormat = 2

// storedMeta is Meta as it is stored, as JSON so that people can read it.
type storedMeta struct {
	Format           int       `json:"format"`
	LogID            string    `json:"log_id"`
	Start            string    `json:"start"`
	SystemIdentifier string    `json:"system_identifier"`
	Timeline         int32     `json:"timeline"`
	Database         string    `json:"database"`
	Slot             string    `json:"slot"`
	Created          time.Time `json:"created"`
}

func (s *store) putMeta(m Meta) error {
	data, err := json.Marshal(storedMeta{
		Format: metaFormat, LogID: m.LogID.String(), Start: m.Start.String(), SystemIdentifier: m.SystemIdentifier,
		Timeline: m.Timeline, Database: m.Database, Slot: m.Slot, Created: m.Created,
	})
	if err != nil {
		return fmt.Errorf("encode meta: %w", err)
	}
	return s.put(metaFile, data)
}

// meta returns the stored meta, false when there is none.
func (s *store) meta() (Meta, bool, error) {
	data, err := s.get(metaFile)
	if errors.Is(err, errNotStored) {
		return Meta{}, false, nil
	}
	if err != nil {
		return Meta{}, false, err
	}
	var m storedMeta
	if err := json.Unmarshal(data, &m); err != nil {
		return Meta{}, false, fmt.Errorf("%w: meta: %w", ErrCorrupt, err)
	}
	if m.Format != metaFormat {
		return Meta{}, false, fmt.Errorf("open change log: it has format %d and this version of Syncline reads format %d (use the version that wrote it)", m.Format, metaFormat)
	}
	id, errID := change.ParseLogID(m.LogID)
	start, errStart := change.ParseLSN(m.Start)
	if err := errors.Join(errID, errStart); err != nil {
		return Meta{}, false, fmt.Errorf("%w: meta: %w", ErrCorrupt, err)
	}
	return Meta{
		LogID: id, Start: start, SystemIdentifier: m.SystemIdentifier, Timeline: m.Timeline,
		Database: m.Database, Slot: m.Slot, Created: m.Created,
	}, true, nil
}
