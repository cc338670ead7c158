package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// move takes a table from one publication to another.
type move struct {
	table    *Table // nil when the table is no longer in the catalog's list
	oid      uint32
	from     []target // where it is listed now
	to       target
	through  target // where a partitioned table above it is listed, which captures it without being listed itself
	refilter bool   // it is where it belongs, but with a row filter or a column list
}

// unit is the moves of one family of tables. They are made in one transaction, so that going over from a partitioned
// table to its partitions leaves no hole.
type unit struct {
	root  uint32
	moves []move
}

// changes compares what is listed with what should be.
func changes(c catalog, p plan, have [2]publication) []unit {
	families := make(map[uint32][]move)
	add := func(m move) {
		root := m.oid
		if m.table = c.tables[m.oid]; m.table != nil {
			root = c.root(m.table).OID
		}
		families[root] = append(families[root], m)
	}
	listed := make(map[uint32][]target)
	filtered := make(map[uint32]bool)
	for i, pub := range have {
		for oid, f := range pub.members {
			listed[oid] = append(listed[oid], everything+target(i))
			filtered[oid] = filtered[oid] || f
		}
	}
	for oid, from := range listed {
		to := p.listed[oid]
		if len(from) != 1 || from[0] != to || filtered[oid] {
			add(move{oid: oid, from: from, to: to, through: c.through(p, oid), refilter: filtered[oid]})
		}
	}
	for oid, to := range p.listed {
		if listed[oid] == nil {
			add(move{oid: oid, to: to})
		}
	}
	units := make([]unit, 0, len(families))
	for root, moves := range families {
		slices.SortFunc(moves, func(a, b move) int { return cmp.Compare(a.oid, b.oid) })
		units = append(units, unit{root: root, moves: moves})
	}
	slices.SortFunc(units, func(a, b unit) int { return cmp.Compare(a.root, b.root) })
	return units
}

// through is where the plan lists a partitioned table above a table, nowhere if it lists none.
func (c catalog) through(p plan, oid uint32) target {
	for t := c.tables[oid]; t != nil; {
		if t = c.tables[t.Parent]; t != nil && p.listed[t.OID] != nowhere {
			return p.listed[t.OID]
		}
	}
	return nowhere
}

// urgency puts first the families in which something is taken out of the first publication: as long as it is in there
// without an identity, statements on the primary fail.
func urgency(units []unit) [2][]unit {
	var order [2][]unit
	for _, u := range units {
		rank := 1
		if slices.ContainsFunc(u.moves, func(m move) bool { return m.to != everything && slices.Contains(m.from, everything) }) {
			rank = 0
		}
		order[rank] = append(order[rank], u)
	}
	return order
}

// maxUnits bounds how many tables one transaction locks at once.
const maxUnits = 500

// apply makes the changes, all in one transaction if possible and in ever smaller parts where a table stands in the way.
func (s *State) apply(ctx context.Context, conn *pgx.Conn, cfg Config, units []unit, failed map[uint32]bool) {
	if len(units) == 0 || conn.IsClosed() || ctx.Err() != nil {
		return
	}
	var err error
	if len(units) <= maxUnits {
		if err = s.transact(ctx, conn, cfg, units); err == nil {
			return
		}
	}
	if half := len(units) / 2; half > 0 {
		s.apply(ctx, conn, cfg, units[:half], failed)
		s.apply(ctx, conn, cfg, units[half:], failed)
		return
	}
	failed[units[0].root] = true
	s.Pending = append(s.Pending, fmt.Sprintf("publishing of %s waits: %v", units[0].name(), err))
}

func (u unit) name() string {
	for _, m := range u.moves {
		if m.table != nil {
			return m.table.Name.String()
		}
	}
	return "table with OID " + strconv.FormatUint(uint64(u.moves[0].oid), 10)
}

// errChanged says that the catalog changed while a change was being made. The next call sees the new state.
var errChanged = errors.New("its definition has just changed")

// transact makes the changes and looks again before it commits: what was locked cannot lose its identity any more.
func (s *State) transact(ctx context.Context, conn *pgx.Conn, cfg Config, units []unit) error {
	var note Announcement
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		timeout := strconv.FormatInt(cfg.LockTimeout.Milliseconds(), 10)
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", timeout); err != nil {
			return fmt.Errorf("set lock_timeout: %w", err)
		}
		for _, statement := range statements(cfg, units, &note) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("alter publication: %w", err)
			}
		}
		c, have, err := readAll(ctx, tx, cfg)
		if err != nil {
			return err
		}
		if !settled(c, c.plan(cfg), have, units) {
			return errChanged
		}
		note.spread(c)
		return announce(ctx, tx, cfg, &note)
	})
	if err != nil {
		return err
	}
	s.Listed = append(s.Listed, note.listedNames()...)
	s.Removed = append(s.Removed, note.removedNames()...)
	return nil
}

// settled tells whether every table of the units is where it belongs.
func settled(c catalog, p plan, have [2]publication, units []unit) bool {
	for _, u := range units {
		for _, m := range u.moves {
			_, full := have[0].members[m.oid]
			_, inserts := have[1].members[m.oid]
			to := p.listed[m.oid]
			if full != (to == everything) || inserts != (to == insertOnly) {
				return false
			}
		}
	}
	return true
}

// statements lists what the units need: locks, and at most one ALTER PUBLICATION for each publication and direction. It
// notes what they change. A table that left the catalog meanwhile has left the publications with it.
func statements(cfg Config, units []unit, note *Announcement) []string {
	var drop, add [2][]string
	var locks []string
	for _, u := range units {
		for _, m := range u.moves {
			if m.table == nil {
				continue
			}
			table := m.table.Name.SQL()
			if m.table.Owned {
				locks = append(locks, table)
			}
			for _, from := range m.from {
				if from != m.to || m.refilter {
					drop[from-everything] = append(drop[from-everything], table)
				}
			}
			if m.to != nowhere && (m.refilter || !slices.Contains(m.from, m.to)) {
				add[m.to-everything] = append(add[m.to-everything], table)
			}
			note.add(m)
		}
	}
	var all []string
	// The tables first and then the publication, as somebody does who alters a table and so sets off the guard: nobody waits
	// for the publication while we wait for a table.
	if locks != nil {
		all = append(all, "LOCK TABLE ONLY "+strings.Join(locks, ", ONLY ")+" IN SHARE UPDATE EXCLUSIVE MODE")
	}
	for i, name := range cfg.Names() {
		if drop[i] != nil {
			all = append(all, "ALTER PUBLICATION "+postgres.Ident(name)+" DROP TABLE ONLY "+strings.Join(drop[i], ", ONLY "))
		}
	}
	for i, name := range cfg.Names() {
		if add[i] != nil {
			all = append(all, "ALTER PUBLICATION "+postgres.Ident(name)+" ADD TABLE ONLY "+strings.Join(add[i], ", ONLY "))
		}
	}
	return all
}
