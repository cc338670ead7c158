package main

import (
	"context"
	"fmt"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// depth says how much of a side is stopped.
type depth int

const (
	replicaOnly depth = iota // what runs on the replica
	everything               // also what reads the primary's WAL
)

// side is one way to replicate the lab's primary into one database of its replica, or to spend the time on that.
type side interface {
	// replicate sets the replication up and returns when what the primary holds is on the replica.
	replicate(ctx context.Context) error
	// stop stops the replication; the primary goes on.
	stop(ctx context.Context, d depth) error
	// settled returns when all that runs while the replication is stopped has taken the newest marker.
	settled(ctx context.Context) error
	// start starts what was stopped, and returns as soon as that is asked for.
	start(ctx context.Context) error
	// reached returns when the marker is visible.
	reached(ctx context.Context, marker int64) error
	// report adds what was used since begin.
	begin(ctx context.Context) error
	report(ctx context.Context, f figures) error
	// close stops everything. The lab is closed after it.
	close() error
}

// The names of the sides.
const (
	nativeSide   = "native"
	synclineSide = "syncline"
	floorSide    = "floor"
)

// contender is a side, and for the native one the variant of it.
type contender struct {
	side    string
	variant variant
}

func (c contender) String() string {
	if c.variant.name == "" {
		return c.side
	}
	return fmt.Sprintf("%s (%s)", c.side, c.variant.name)
}

// on builds the contender's side of a lab. For a new one the replica's database is still empty.
func (c contender) on(l *lab, o options) side {
	switch c.side {
	case nativeSide:
		return &native{lab: l, variant: c.variant, url: l.replicaURL(), name: database}
	case floorSide:
		return &floor{lab: l}
	}
	return newSyncline(l, o, l.replicaURL())
}

// ident quotes the name of a table in schema public.
func ident(table string) string { return postgres.Ident("public", table) }

// many builds the contender's sides for several databases of the replica. They have the primary's side in common.
func (c contender) many(l *lab, o options, databases []string) []side {
	group := make([]side, len(databases))
	var first *syncline
	for i, name := range databases {
		url := l.replica.URL(name)
		if c.side == nativeSide {
			group[i] = &native{lab: l, variant: c.variant, url: url, name: name}
			continue
		}
		next := newSyncline(l, o, url)
		if first == nil {
			first = next
		}
		next.primary = first.primary
		group[i] = next
	}
	return group
}
