package logger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// catalogShare bounds the part of the time that looks at the catalog may take: with very many tables they become rarer.
const catalogShare = 20

// keepPublications looks at the catalog again and again, also while capture is interrupted: a table that has lost its
// identity must leave the publication, for until then UPDATE and DELETE on it fail.
func (s *Service) keepPublications(ctx context.Context) error {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			disconnect(ctx, conn)
		}
	}()
	interval := s.cfg.CatalogInterval
	for {
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.lookNow:
			timer.Stop()
		case <-timer.C:
		}
		began := time.Now()
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = s.connect(ctx, applicationCatalog); err != nil {
				conn = nil
				continue // capture tells in the state that the primary cannot be reached
			}
		}
		s.look(ctx, conn)
		interval = max(s.cfg.CatalogInterval, catalogShare*time.Since(began))
	}
}

// look brings the publications in line, if capture has made them.
func (s *Service) look(ctx context.Context, conn *pgx.Conn) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	session := s.running.Load()
	ctx, cancel := context.WithTimeout(ctx, s.publicationTimeout())
	defer cancel()
	if _, loaded := s.settings.get(); !loaded {
		return // what is to be captured is not known yet
	}
	tables, err := publish.Reconcile(ctx, conn, *s.pub.Load())
	if session != nil && (errors.Is(err, publish.ErrForeignPublication) || err == nil && tables.OIDs != session.publications) {
		session.end(errReplaced)
	}
	if err != nil {
		s.log.Debug("look at the catalog", "error", err)
		return // the next session says what is wrong with the publications
	}
	for _, name := range tables.Listed {
		s.log.Info("table is captured from now on", "table", name.String())
	}
	for _, name := range tables.Removed {
		s.log.Warn("table is no longer captured", "table", name.String())
	}
	s.announcePartitions(ctx, conn, tables)
	s.status.setTables(tables)
	if err := s.families.look(ctx, conn, tables.Above); err != nil {
		s.log.Debug("look at the partitions", "error", err)
	}
}

// announcePartitions tells followers of partitions that they have not been told of by this process. It is tried again with the next look.
func (s *Service) announcePartitions(ctx context.Context, conn *pgx.Conn, tables publish.State) {
	fresh := slices.DeleteFunc(slices.Clone(tables.Partitions), func(t publish.AnnouncedTable) bool { return s.partitions[t.OID] })
	if err := publish.AnnounceJoined(ctx, conn, *s.pub.Load(), fresh); err != nil {
		s.log.Debug("announce partitions", "error", err)
		return
	}
	s.partitions = make(map[uint32]bool, len(tables.Partitions))
	for _, t := range tables.Partitions {
		s.partitions[t.OID] = true
	}
}

// watchServer reads once a second what GetState and heartbeats tell about the primary.
func (s *Service) watchServer(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s.readServer(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) readServer(ctx context.Context) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var stats serverStats
	var wal, keep, idle, encoding string
	err := s.pool.QueryRow(ctx, `
		SELECT pg_current_wal_lsn()::text, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::int8, coalesce(s.wal_status, ''),
		       s.safe_wal_size, current_setting('max_slot_wal_keep_size'),
		       (SELECT nullif(setting::int8, -1) * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), coalesce(current_setting('idle_replication_slot_timeout', true), '0'),
		       current_setting('server_encoding')
		FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = $1`, s.cfg.Slot).
		Scan(&wal, &stats.retained, &stats.walStatus, &stats.left, &keep, &stats.limit, &idle, &encoding)
	if err != nil {
		return // what was read last stands, with the time of the last contact
	}
	if stats.walLSN, err = change.ParseLSN(wal); err != nil {
		return
	}
	s.status.setServer(stats, limitWarnings(s.cfg.Slot, stats.walStatus, stats.left, keep, idle, encoding))
}

// limitWarnings tells what can cost the slot, and so the change log's continuity.
func limitWarnings(slot, walStatus string, safe *int64, keep, idle, encoding string) []string {
	var list []string
	if keep != "-1" {
		text := fmt.Sprintf("max_slot_wal_keep_size is %s: when the logger is down while more WAL than that is written, slot %s is lost and every replica has to be copied anew", keep, slot)
		if safe != nil {
			text += fmt.Sprintf("; %d bytes are left", *safe)
		}
		list = append(list, text)
	}
	if idle != "0" {
		list = append(list, fmt.Sprintf("idle_replication_slot_timeout is %s: when the logger is down for longer, slot %s is lost and every replica has to be copied anew", idle, slot))
	}
	if walStatus == "unreserved" {
		list = append(list, fmt.Sprintf("slot %s will be lost with the next checkpoint: WAL that it needs is about to be removed", slot))
	}
	if encoding == "SQL_ASCII" {
		list = append(list, "the database's encoding is SQL_ASCII: PostgreSQL does not check its texts, and a replica with another encoding may refuse them")
	}
	return list
}

const saveInterval = 3 * time.Second

// saveFollowers writes what followers have applied every few seconds, and a last time at the end.
func (s *Service) saveFollowers(ctx context.Context) error {
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	save := func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, saveInterval)
		defer cancel()
		if err := s.followers.save(ctx, s.pool); err != nil {
			s.log.Debug("save followers", "error", err) // tried again; what is lost with the process is only older
		}
	}
	for {
		save(ctx)
		select {
		case <-ctx.Done():
			save(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
		}
	}
}
