package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// everything selects all tables of the target, to find those that the source's tables belong to.
var everything = schema.Selection{}

// plan is what the first copy of some tables will do, found out before anything is touched.
type plan struct {
	described  schema.Database // the source, under its own names
	source     schema.Renamed  // the same under the names that it has here
	target     schema.Database
	tables     []*storedTable  // those to copy
	restored   *restoredTables // those that a backup was restored into, nil for none
	create     []schema.Name   // those to create, by their names here
	statements schema.Plan
	warnings   []string
	all        bool          // nothing that is copied counts any more, nor does the position
	gone       []schema.Name // tables that were to be copied and that the source has no longer
	set        usedSet
	leftOut    []schema.Name  // those that are selected and that the source does not capture
	left       []*storedTable // those that are in the set no longer
	sharers    []string       // the other replications that may write the same tables, as they were
	narrowed   []*storedTable // as they were: those that are shared and of which other rows are selected now
	parameters map[string]string
	server     string // id of the source
	mismatches []schema.Mismatch
	settings   postgres.Settings // of the target
}

// planOptions say what a plan is made for.
type planOptions struct {
	replication string
	selection   schema.Selection
	replace     bool // rows in the target's tables may be removed
	incremental bool // rows in the target's tables are mended
	mend        bool // so are those of the replication's own tables
	unguarded   bool // the role may not set session_replication_role
	renaming    schema.Renaming
	shared      bool // tables of which the set selects rows may hold rows of others
	known       map[schema.Name]*storedTable
	// restored are the tables that a backup was restored into, if the replication begins with them.
	restored *restoredTables
	// again are tables, or partitioned tables above some, whose copies from before an LSN do not count; nil for none.
	again *apply.NewTableError
	all   bool // no copy counts: all tables are copied again
	// streamed says that again has come in the stream.
	streamed bool
}

// findGone finds tables that wait for a copy that the source cannot give any more. Their rows on the replica stay.
func (p *plan) findGone(o planOptions) {
	for name, t := range o.known {
		if _, there := p.source.Of(name); there || t.state == tableCopied && !o.all {
			continue
		}
		if p.set.name != "" && o.all {
			p.left = append(p.left, t) // the set decides which rows are here
			continue
		}
		p.gone = append(p.gone, name)
	}
	slices.SortFunc(p.gone, func(a, b schema.Name) int { return compareText(a.String(), b.String()) })
	for _, name := range p.gone {
		p.warnings = append(p.warnings, fmt.Sprintf("table %s is not at the source any more, or not captured there: its rows here stand still", name))
	}
}

// read describes both sides, and finds out what the logger captures, all at the same time.
func (p *plan) read(ctx context.Context, conn *pgx.Conn, src *source, selection schema.Selection) (captured map[string]bool, err error) {
	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		if p.described, err = src.describe(ctx, selection); err != nil {
			return err
		}
		if src.set.name != "" {
			return nil // whoever made the set has been told
		}
		return p.described.Check(selection)
	})
	group.Go(func() (err error) {
		captured, err = capturedTables(ctx, src)
		return err
	})
	group.Go(func() (err error) {
		if p.target, err = schema.Read(ctx, conn, everything); err != nil {
			return fmt.Errorf("read the replica's tables: %w", err)
		}
		p.settings, err = postgres.ReadSettings(ctx, conn)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return captured, p.target.ReadAvailable(outer, conn, p.described)
}

func nonNil(names []schema.Name) []schema.Name {
	if names == nil {
		return []schema.Name{}
	}
	return names
}

// capturedTables are the tables whose changes are in the change log, by their SQL name. A logger that has just started does
// not know them yet; it is waited for a little, because what it does not name would be left out.
func capturedTables(ctx context.Context, src *source) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	for {
		state, err := src.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{Set: src.set.name, Parameters: src.set.parameters})
		if err != nil {
			return nil, fmt.Errorf("ask the source's logger for its tables: %w", err)
		}
		if err := src.sameServer("logger", state.GetServerId()); err != nil {
			return nil, err
		}
		if state.GetPosition() != nil && (state.GetState() == stateCapturing || len(state.GetTables()) > 0) {
			captured := make(map[string]bool, len(state.GetTables()))
			for _, name := range state.GetTables() {
				captured[name] = true
			}
			return captured, nil
		}
		select {
		case <-time.After(loggerPoll):
		case <-ctx.Done():
			return nil, rpc.Errorf(codes.Unavailable, reasonNotReady, "the source's logger does not capture yet, it is %s: %s %s; try again when it does",
				state.GetState(), state.GetReasonCode(), state.GetReason())
		}
	}
}

const (
	stateCapturing = "capturing" // of a logger
	loggerPoll     = 100 * time.Millisecond
)

// leaveOut takes out of the plan what the logger does not capture: a copy of it would stand still. A table that was asked
// for by its name is refused instead.
//
// What has just come in the stream is captured, whatever the logger's state says: it is a little behind.
func (p *plan) leaveOut(captured map[string]bool, o planOptions) (warnings []string, err error) {
	var refused []string
	selection, all := o.selection, p.described
	p.described.Tables = slices.DeleteFunc(slices.Clone(p.described.Tables), func(t schema.Table) bool {
		name := t.FullName()
		if !t.HasRows() || captured[name.SQL()] || o.streamed && named(o.again.Tables, all, t) {
			return false
		}
		for _, include := range selection.Include {
			if exact, ok := include.Exact(); ok && exact == name {
				refused = append(refused, name.String())
			}
		}
		why := t.NoIdentity
		if why == "" {
			why = "the logger does not capture it"
		}
		p.leftOut = append(p.leftOut, name)
		warnings = append(warnings, fmt.Sprintf("table %s is not replicated: %s", name, why))
		return true
	})
	if len(refused) > 0 {
		return nil, failed(reasonUnknownTable, "the logger of the source does not capture %s; see `syncline status` of the primary for why", strings.Join(refused, ", "))
	}
	return warnings, nil
}

// named tells whether names hold a table, or a partitioned one above it.
func named(names []schema.Name, all schema.Database, t schema.Table) bool {
	return slices.Contains(names, t.FullName()) || slices.ContainsFunc(sets.Above(all, t), func(n schema.Name) bool { return slices.Contains(names, n) })
}

// leaveToOthers refuses tables whose target another replication writes: two of them would take each other's rows for strangers'.
// One that appears while the replication runs is left out.
func (p *plan) leaveToOthers(o planOptions, others map[schema.Name][]targetHolder) error {
	var taken []string
	var refused error
	p.source.Tables = slices.DeleteFunc(slices.Clone(p.source.Tables), func(t schema.Table) bool {
		name := p.source.Source(t.FullName())
		if !t.HasRows() || refused != nil {
			return false
		}
		target := p.routed(t)
		if p.shares(o, name) {
			refused = p.mayShare(t, target, p.set.rows[name], others[target])
			return false
		}
		if o.known[name] != nil || len(others[target]) == 0 {
			return false
		}
		other := others[target][0].replication
		if o.again != nil {
			p.warnings = append(p.warnings, fmt.Sprintf("table %s is left out: replication %s writes table %s of the replica", name, other, target))
			return true
		}
		taken = append(taken, fmt.Sprintf("%s (by %s)", target, other))
		return false
	})
	if refused != nil {
		return refused
	}
	if len(taken) > 0 {
		slices.Sort(taken)
		return rpc.Errorf(codes.AlreadyExists, reasonExists, "tables of the replica are written by another replication already: %s; leave them out with --exclude-table, or give them other names here with --rename; if a set selects other rows of them for each replication, all of these may say --shared", strings.Join(slices.Compact(taken), ", "))
	}
	return nil
}

// planLock is held while a plan is carried out, so that of two replications one sees the other's tables.
const planLock = int64(0x73796e63_706c616e)

// stillFree makes sure that no other replication has taken a target table since the plan was made.
func (p *plan) stillFree(ctx context.Context, tx pgx.Tx, replication string) error {
	if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", planLock); err != nil {
		return fmt.Errorf("wait for other replications: %w", err)
	}
	others, err := targetsOfOthers(ctx, tx, replication)
	if err != nil {
		return err
	}
	for _, t := range slices.Concat(p.tables, p.restored.stored()) {
		for _, other := range others[t.target] {
			if t.shared {
				known := slices.ContainsFunc(p.sharers, func(s string) bool { return s == other.String() })
				if known {
					continue
				}
			}
			return fmt.Errorf("%w: replication %s writes table %s now", errSuperseded, other.replication, t.target)
		}
	}
	return nil
}

// chooseTables lists the tables to copy and refuses one whose target holds rows that are not this replication's.
func (p *plan) chooseTables(ctx context.Context, conn *pgx.Conn, o planOptions) error {
	var filled []string
	for _, t := range p.source.Tables {
		name := p.source.Source(t.FullName())
		before := o.known[name]
		if !t.HasRows() || before != nil && before.oid == t.OID && !o.all && !p.copiedAgain(before, o.again) {
			continue
		}
		_, exists := schema.Route(p.source.Database, p.target, t.FullName())
		target := p.routed(t)
		table := &storedTable{
			name: name, target: target, own: target == t.FullName(), shared: p.shares(o, name), oid: t.OID, state: tableWaiting, estimatedRows: t.EstimatedRows, bytesExpected: t.EstimatedBytes, pages: t.Pages,
			selector: p.set.rows[name],
		}
		p.tables = append(p.tables, table)
		if before != nil && before.shared && before.selector != table.selector {
			p.narrowed = append(p.narrowed, before)
		}
		if !exists || before == nil && o.replace || before != nil && !o.mend {
			continue
		}
		where, err := p.ownRows(table)
		if err != nil {
			return err
		}
		var rows bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+target.SQL()+where+")").Scan(&rows); err != nil {
			return fmt.Errorf("look into table %s of the replica: %w", target, err)
		}
		if described, _ := p.target.Table(target); rows && before == nil && t.IsPartition() && described.Kind == schema.KindPartitioned {
			return failed(reasonMissingObject, "the source's partition %s is not there on the replica, whose table %s has partitions of its own: make it there too (CREATE TABLE %s PARTITION OF %s %s), then start the replication again",
				name, target, t.FullName().SQL(), target.SQL(), t.Bound)
		}
		table.incremental = rows && (o.incremental || before != nil)
		if rows && !table.incremental && !slices.Contains(filled, target.String()) {
			filled = append(filled, target.String())
		}
	}
	if len(filled) > 0 {
		return failed(reasonNotEmpty, "tables of the replica already hold rows: %s; empty them, leave them out with --exclude-table, let --replace remove their rows before the copy, or have --initial incremental mend what differs in them", strings.Join(filled, ", "))
	}
	return nil
}

// indexes are those that can be built as soon as their table is whole, by the source table whose rows fill it alone.
func (p *plan) indexes() map[schema.Name][]schema.Statement {
	found := map[schema.Name][]schema.Statement{}
	for _, t := range p.tables {
		if !t.own || !slices.Contains(p.create, t.target) {
			continue
		}
		for _, s := range p.statements.After {
			if s.Kind == schema.StatementIndex && s.Parallel && s.Table == t.target {
				found[t.name] = append(found[t.name], s)
			}
		}
	}
	return found
}

// copiedAgain tells whether a table's copy does not count, because of its own name or that of a table above it.
func (p *plan) copiedAgain(before *storedTable, again *apply.NewTableError) bool {
	if again == nil || before.position.LSN > again.LSN {
		return false
	}
	described, _ := p.described.Table(before.name)
	return named(again.Tables, p.described, described)
}

// carryOut creates what is missing and stores the tables, all or nothing.
func (p *plan) carryOut(ctx context.Context, conn *pgx.Conn, replication string) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := p.stillFree(ctx, tx, replication); err != nil {
			return err
		}
		for _, s := range p.statements.Before {
			if _, err := tx.Exec(ctx, s.SQL); err != nil {
				return fmt.Errorf("create %s %s: %w", s.Kind, s.Name, err)
			}
		}
		before, err := createdTables(ctx, tx, replication)
		if err != nil {
			return err
		}
		if err := setCreatedTables(ctx, tx, replication, append(before, p.create...)); err != nil {
			return err
		}
		gone := &drops{replication: replication}
		for _, name := range p.gone {
			if err := removeTable(ctx, tx, replication, name, gone); err != nil {
				return err
			}
		}
		if p.all {
			if err := forgetPosition(ctx, tx, replication, gone); err != nil {
				return err
			}
		}
		for _, t := range p.tables {
			if err := addTable(ctx, tx, replication, t); err != nil {
				return err
			}
		}
		if err := p.restored.take(ctx, tx, replication, gone); err != nil {
			return err
		}
		if err := p.storeShapes(ctx, tx, replication); err != nil {
			return err
		}
		if err := p.removeNarrowed(ctx, tx); err != nil {
			return err
		}
		if err := p.leave(ctx, tx, replication, gone); err != nil {
			return err
		}
		if err := p.keepColumns(ctx, tx, replication); err != nil {
			return err
		}
		if err := setSetVersion(ctx, tx, replication, p.set.version); err != nil {
			return err
		}
		if err := setLeftOut(ctx, tx, replication, p.leftOut); err != nil {
			return err
		}
		if err := setPhase(ctx, tx, replication, phaseSyncing); err != nil {
			return err
		}
		return gone.store(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("prepare the replica: %w", err)
	}
	fault.Point(FaultPrepared)
	return nil
}
