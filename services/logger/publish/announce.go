package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// MessagePrefix marks the message in the change log with which followers are told what is captured. It stands in the transaction
// that changes the publications, and its content is an [Announcement] as JSON.
const MessagePrefix = "syncline.tables"

// Announcements is the table through which the message comes: an insert of the first publication's name and the content. A logical
// message would not do, because everybody may emit one, and this is believed. docs/adr/0005-announcements.md tells more.
var Announcements = schema.Name{Schema: "syncline", Name: "announcements"}

// Columns of Announcements.
const (
	ColumnPublication = "publication"
	ColumnContent     = "content"
)

// announceSQL are the statements that announce. The row goes again at once: only inserts are published.
var announceSQL = [2]string{
	"INSERT INTO " + Announcements.SQL() + " (" + ColumnPublication + ", " + ColumnContent + ") VALUES ",
	"DELETE FROM " + Announcements.SQL(),
}

// announce tells followers of a change, in the transaction that makes it.
func announce(ctx context.Context, tx pgx.Tx, cfg Config, note *Announcement) error {
	content, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("write announcement: %w", err)
	}
	if _, err := tx.Exec(ctx, announceSQL[0]+"($1, $2)", cfg.Name, string(content)); err != nil {
		return fmt.Errorf("announce change of the publications: %w", err)
	}
	if _, err := tx.Exec(ctx, announceSQL[1]); err != nil {
		return fmt.Errorf("announce change of the publications: %w", err)
	}
	return nil
}

// publishAnnouncements makes the second publication, which is p, list the table, all of its rows: nothing could be announced
// before.
func publishAnnouncements(ctx context.Context, conn *pgx.Conn, cfg Config, p publication) error {
	if p.announces {
		return nil
	}
	name := postgres.Ident(cfg.InsertName())
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if p.announcesSome {
			if _, err := tx.Exec(ctx, "ALTER PUBLICATION "+name+" DROP TABLE ONLY "+Announcements.SQL()); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "ALTER PUBLICATION "+name+" ADD TABLE ONLY "+Announcements.SQL())
		return err
	})
	if err != nil {
		return fmt.Errorf("publish table %s: %w", Announcements, err)
	}
	return nil
}

// mayAnnounce refuses a role that can never announce anything.
func (c catalog) mayAnnounce(p publication, role string) error {
	for _, t := range c.tables {
		if t.Name == Announcements && !t.Owned && !p.announces {
			return fmt.Errorf("%w: it has to list table %s, which belongs to %s, and only its owner may publish it; GRANT %s TO %s",
				ErrForeignPublication, Announcements, t.Owner, postgres.Ident(t.Owner), postgres.Ident(role))
		}
	}
	return nil
}

// Announcement is the content of the message that tells followers of a change: from its commit on a table in Captured
// is captured whole, one in InsertOnly without its updates and deletes, and one in Removed not at all. One in Joined is a
// partition of one that is captured: who has no copy of it makes one, and for others nothing changes. A partitioned table
// stands for all its partitions, also future ones; those that there are stand beside it, for who follows only some of them. Removed is to be read first: when a partitioned table goes, partitions of it
// may be captured one by one from then on, without a gap.
type Announcement struct {
	Captured   []AnnouncedTable `json:"captured,omitempty"`
	InsertOnly []AnnouncedTable `json:"insert_only,omitempty"`
	Joined     []AnnouncedTable `json:"joined,omitempty"`
	Removed    []AnnouncedTable `json:"removed,omitempty"`
}

// maxJoined bounds how many tables one announcement of AnnounceJoined names.
const maxJoined = 1000

// AnnounceJoined tells followers of partitions. What is attached to a captured partitioned table is captured from then on, and rows that it had
// before may never have been; who has no copy of it makes one. To tell of one that is known already changes nothing.
func AnnounceJoined(ctx context.Context, conn *pgx.Conn, cfg Config, tables []AnnouncedTable) error {
	for some := range slices.Chunk(tables, maxJoined) {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return announce(ctx, tx, cfg, &Announcement{Joined: some}) })
		if err != nil {
			return err
		}
	}
	return nil
}

func announced(t *Table) AnnouncedTable {
	return AnnouncedTable{OID: t.OID, Schema: t.Name.Schema, Name: t.Name.Name}
}

// AnnouncedTable names a table.
type AnnouncedTable struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// spread names the partitions beside the partitioned tables.
func (a *Announcement) spread(c catalog) {
	for _, list := range []*[]AnnouncedTable{&a.Captured, &a.InsertOnly, &a.Joined, &a.Removed} {
		for _, listed := range slices.Clone(*list) {
			t := c.tables[listed.OID]
			if t == nil {
				continue
			}
			for _, leaf := range c.leaves(t) {
				table := announced(leaf)
				if !slices.Contains(*list, table) {
					*list = append(*list, table)
				}
			}
		}
	}
}

func (a *Announcement) add(m move) {
	table := announced(m.table)
	list := &a.Removed
	switch {
	case m.to == nowhere && m.through != nowhere && slices.Equal(m.from, []target{m.through}):
		list = &a.Joined
	case cmp.Or(m.to, m.through) == everything:
		list = &a.Captured
	case cmp.Or(m.to, m.through) == insertOnly:
		list = &a.InsertOnly
	}
	*list = append(*list, table)
}

func (a *Announcement) listedNames() []schema.Name {
	return names(slices.Concat(a.Captured, a.InsertOnly))
}
func (a *Announcement) removedNames() []schema.Name { return names(a.Removed) }

func names(tables []AnnouncedTable) []schema.Name {
	list := make([]schema.Name, len(tables))
	for i, t := range tables {
		list[i] = schema.Name{Schema: t.Schema, Name: t.Name}
	}
	return list
}
