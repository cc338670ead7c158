// Package publish keeps two publications in line with the tables that are to be captured, such that no statement on the
// primary fails because of them: only tables with a usable identity are published for updates and deletes, and one that
// loses its identity is taken out again. Each change of what is captured is announced in the stream, in its own
// transaction, so that a follower knows from where on a table's changes are whole.
//
// The first publication lists tables with all their changes, the second, NAME_insert, those of which only inserts and
// truncates are captured. Tables are listed one by one, never FOR ALL TABLES: that would publish tables without an
// identity too, and PostgreSQL then refuses UPDATE and DELETE on them.
package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Config says what is captured.
type Config struct {
	// Name is that of the first publication; the second one's is Name + "_insert".
	Name string
	// Select chooses the tables.
	Select schema.Selection
	// InsertOnly are those of them of which only inserts and truncates are captured.
	InsertOnly []schema.Pattern
	// LockTimeout bounds each wait for a table's lock. It must be above the server's deadlock_timeout (1 s by default),
	// for only then does an autovacuum give way. Nobody but other DDL and VACUUM waits behind us.
	LockTimeout time.Duration
}

// InsertName is the name of the second publication.
func (c Config) InsertName() string { return c.Name + "_insert" }

// Names are the names of both publications.
func (c Config) Names() []string { return []string{c.Name, c.InsertName()} }

// target says where a table belongs, given the names of the partitioned tables above it.
func (c Config) target(name schema.Name, above []schema.Name) target {
	if !c.Select.Matches(name, above...) {
		return nowhere
	}
	for _, p := range c.InsertOnly {
		if p.Matches(name) || slices.ContainsFunc(above, p.Matches) {
			return insertOnly
		}
	}
	return everything
}

// State is what is captured.
type State struct {
	// OIDs are those of the two publications. Another OID means that a publication was dropped and made again, and that
	// changes in between were not captured.
	OIDs [2]uint32
	// Captured are the tables with rows whose changes are captured, InsertOnly those of them of which only inserts and
	// truncates are.
	Captured, InsertOnly []schema.Name
	// Refused are selected tables that are not captured.
	Refused []Refusal
	// Above are the partitioned tables above each partition.
	Above map[schema.Name][]schema.Name
	// Partitions are the tables with rows that are captured through a partitioned table above them.
	Partitions []AnnouncedTable
	// Pending are changes of the publications that wait, with their reason. They are tried again with the next call.
	Pending []string
	// Listed and Removed tell what this call changed.
	Listed, Removed []schema.Name
}

// ErrForeignPublication says that a publication of our name is not ours to use. Its text names the way out.
var ErrForeignPublication = errors.New("publication cannot be used")

// UnknownTablesError lists patterns without a star that select no table.
type UnknownTablesError struct{ Names []string }

func (e *UnknownTablesError) Error() string {
	return "select tables: no such table to capture: " + strings.Join(e.Names, ", ") + " (a permanent table in this database is needed; names with capitals need quotes)"
}

// Check returns what would be captured and refused, without changing anything. It returns an *UnknownTablesError when a
// configured table does not exist, and ErrForeignPublication when a publication of the name is of another kind or the role may not
// announce its changes.
func Check(ctx context.Context, conn *pgx.Conn, cfg Config, role string) (State, error) {
	c, err := read(ctx, conn, role)
	if err != nil {
		return State{}, err
	}
	if err := c.find(slices.Concat(cfg.Select.Include, cfg.Select.Exclude, cfg.InsertOnly)); err != nil {
		return State{}, err
	}
	var state State
	var have [2]publication
	for i, name := range cfg.Names() {
		p, err := readPublication(ctx, conn, name, role)
		if err != nil {
			return State{}, err
		}
		if err := p.usable(name, role); err != nil {
			return State{}, err
		}
		have[i], state.OIDs[i] = p, p.oid
	}
	wanted := c.plan(cfg)
	wanted.refuseForeign(have, role)
	state.describe(c, wanted, nil)
	return state, c.mayAnnounce(have[1], role)
}

// CheckTables returns an *UnknownTablesError when a pattern without a star selects no table.
func CheckTables(ctx context.Context, conn *pgx.Conn, patterns []schema.Pattern) error {
	c, err := read(ctx, conn, "")
	if err != nil {
		return err
	}
	return c.find(patterns)
}

func (c catalog) find(patterns []schema.Pattern) error {
	var unknown []string
	for _, p := range patterns {
		if name, exact := p.Exact(); exact && !c.has(name) {
			unknown = append(unknown, name.String())
		}
	}
	if unknown != nil {
		return &UnknownTablesError{Names: slices.Compact(unknown)}
	}
	return nil
}

func (p publication) usable(name, role string) error {
	switch {
	case p.oid == 0:
		return nil
	case p.allTables || p.schemas:
		return fmt.Errorf("%w: %s is FOR ALL TABLES or FOR TABLES IN SCHEMA, which makes UPDATE fail on tables without an identity; "+
			"DROP PUBLICATION %s, or choose another name with --publication", ErrForeignPublication, name, postgres.Ident(name))
	case !p.owned:
		return fmt.Errorf("%w: %s belongs to %s; ALTER PUBLICATION %s OWNER TO %s, or choose another name with --publication",
			ErrForeignPublication, name, p.owner, postgres.Ident(name), postgres.Ident(role))
	}
	return nil
}

func (c catalog) has(name schema.Name) bool {
	for _, t := range c.tables {
		if t.Name == name {
			return true
		}
	}
	return false
}

// describe tells what the plan captures, but for the families, by their root's OID, that could not be brought in line.
func (s *State) describe(c catalog, p plan, failed map[uint32]bool) {
	list := func(tables []*Table) []schema.Name {
		var names []schema.Name
		for _, t := range tables {
			if !failed[c.root(t).OID] {
				names = append(names, t.Name)
			}
		}
		slices.SortFunc(names, compareNames)
		return names
	}
	s.Captured, s.InsertOnly, s.Refused = list(p.captured), list(p.inserts), p.refused
	slices.SortFunc(s.Refused, func(a, b Refusal) int { return compareNames(a.Table, b.Table) })
	for oid := range p.listed {
		if t := c.tables[oid]; t.Partitioned && !failed[c.root(t).OID] {
			for _, leaf := range c.leaves(t) {
				s.Partitions = append(s.Partitions, announced(leaf))
			}
		}
	}
	s.Above = make(map[schema.Name][]schema.Name)
	for _, t := range c.tables {
		if names := c.above(t); names != nil {
			s.Above[t.Name] = names
		}
	}
}

// read reads the catalog as it is for a role, the session's own when it is empty.
func read(ctx context.Context, q querier, role string) (catalog, error) {
	var version int
	if err := q.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return catalog{}, fmt.Errorf("read the server's version: %w", err)
	}
	tables, err := readTables(ctx, q, role)
	if err != nil {
		return catalog{}, err
	}
	return newCatalog(version, tables), nil
}

var publishedEvents = [2]string{"insert, update, delete, truncate", "insert, truncate"}

// Prepare creates the publications that are missing, empty, and sets the options of the others. It has to be called
// before the slot is created: decoding looks a publication up as of the change it decodes.
func Prepare(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	for i, name := range cfg.Names() {
		p, err := readPublication(ctx, conn, name, "")
		if err != nil {
			return err
		}
		if err := p.usable(name, conn.Config().User); err != nil {
			return err
		}
		options := "publish = " + postgres.Literal(publishedEvents[i]) + ", publish_via_partition_root = false"
		statement := "CREATE PUBLICATION " + postgres.Ident(name) + " WITH (" + options + ")"
		if p.oid != 0 {
			if p.publish == publishedEvents[i] && !p.viaRoot {
				continue
			}
			statement = "ALTER PUBLICATION " + postgres.Ident(name) + " SET (" + options + ")"
		}
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("prepare publication %s: %w", name, err)
		}
	}
	p, err := readPublication(ctx, conn, cfg.InsertName(), "")
	if err != nil {
		return err
	}
	return publishAnnouncements(ctx, conn, cfg, p)
}

// Reconcile brings the publications in line with the configuration and the catalog. What cannot be done now, because a
// table is locked or was just dropped, is told in State.Pending. An error means that nothing can be said about the
// publications' content.
func Reconcile(ctx context.Context, conn *pgx.Conn, cfg Config) (State, error) {
	c, have, err := readAll(ctx, conn, cfg)
	if err != nil {
		return State{}, err
	}
	state := State{OIDs: [2]uint32{have[0].oid, have[1].oid}}
	for i, p := range have {
		if p.oid == 0 {
			return State{}, fmt.Errorf("%w: %s does not exist", ErrForeignPublication, cfg.Names()[i])
		}
		if err := p.usable(cfg.Names()[i], conn.Config().User); err != nil {
			return State{}, err
		}
	}
	if err := publishAnnouncements(ctx, conn, cfg, have[1]); err != nil {
		return State{}, err
	}
	wanted := c.plan(cfg)
	wanted.refuseForeign(have, conn.Config().User)
	failed := make(map[uint32]bool)
	for _, units := range urgency(changes(c, wanted, have)) {
		state.apply(ctx, conn, cfg, units, failed)
		if err := ctx.Err(); err != nil {
			return State{}, err
		}
		if conn.IsClosed() {
			return State{}, fmt.Errorf("bring publication %s in line: connection lost (%s)", cfg.Name, strings.Join(state.Pending, "; "))
		}
	}
	state.describe(c, wanted, failed)
	return state, nil
}

func readAll(ctx context.Context, q querier, cfg Config) (catalog, [2]publication, error) {
	c, err := read(ctx, q, "")
	var have [2]publication
	for i, name := range cfg.Names() {
		if err == nil {
			have[i], err = readPublication(ctx, q, name, "")
		}
	}
	return c, have, err
}
