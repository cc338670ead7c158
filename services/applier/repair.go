package applier

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

const (
	defaultRepairedRows = 100
	maxRepairedRows     = 10_000
	// maxStrikes is how many comparisons in a row may find no fewer differences in a table than the one before, after it was mended.
	maxStrikes = 3
)

// RepairReplication mends the rows that differ; see docs/adr/0011-repair-while-standing-still.md.
func (s *Service) RepairReplication(in *applierv1.RepairReplicationRequest, stream grpc.ServerStreamingServer[applierv1.RepairReplicationResponse]) error {
	ctx := stream.Context()
	r, err := s.runner(ctx, in.GetName())
	if err != nil {
		return err
	}
	p, err := newRepair(r, in, stream.Send)
	if err != nil {
		return err
	}
	src, done, err := r.beginComparing(ctx)
	if err != nil {
		return fmt.Errorf("repair replication %s: %w", in.GetName(), err)
	}
	defer done()
	p.source = src
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("repair replication %s: %w", in.GetName(), verifyRefusal(ctx, err))
	}
	return nil
}

// repair makes a replica equal to its source: it compares both, mends what differs, and compares again what it has mended, until
// nothing differs any more or cannot be mended.
type repair struct {
	runner    *runner
	source    *source
	selection schema.Selection
	request   *applierv1.RepairReplicationRequest
	named     int
	maxHold   time.Duration
	copying   bool // nothing is applied: the tables are in their first copy, from the snapshot of that

	insertOnly map[string]bool // tables of the source of which only inserts come, by their SQL names
	tables     map[schema.Name]*repairedTable

	mu       sync.Mutex // guards what follows, and sending
	send     func(*applierv1.RepairReplicationResponse) error
	progress applierv1.RepairProgress
	told     time.Time // when progress was sent
	result   applierv1.RepairResult
}

// repairedTable is what is known of a table that was found different.
type repairedTable struct {
	result  *applierv1.TableRepair
	failed  string // why it cannot be mended
	strikes int
	before  int64 // rows that differed in the comparison before
	settled int64 // changes in quarantine that were resolved when it was compared last
	tried   bool  // some of them were mended then: enough of them were remembered
	named   int
}

func newRepair(r *runner, in *applierv1.RepairReplicationRequest, send func(*applierv1.RepairReplicationResponse) error) (*repair, error) {
	p := &repair{runner: r, request: in, send: send, named: int(in.GetMaxRows()), maxHold: defaultHold, tables: map[schema.Name]*repairedTable{}}
	var err error
	if p.selection, err = schema.ParseSelection(in.GetIncludeTables(), in.GetExcludeTables()); err != nil {
		return nil, rpc.Invalid("include_tables", "%v", err)
	}
	switch {
	case p.named < 0 || p.named > maxRepairedRows:
		return nil, rpc.Invalid("max_rows", "%d is not from 0 to %d", p.named, maxRepairedRows)
	case p.named == 0:
		p.named = defaultRepairedRows
	}
	if in.GetMaxHold() != nil {
		if p.maxHold = in.GetMaxHold().AsDuration(); p.maxHold < minHold || p.maxHold > maxHold {
			return nil, rpc.Invalid("max_hold", "must be between %v and %v", minHold, maxHold)
		}
	}
	return p, nil
}

// run mends everything and sends the result. It can run again after it has failed.
func (p *repair) run(ctx context.Context) error {
	p.result = applierv1.RepairResult{DryRun: p.request.GetDryRun()}
	for _, t := range p.tables { // what was changed in them is still counted
		t.failed, t.strikes, t.before, t.settled, t.result.Reason = "", 0, 0, -1, ""
	}
	if err := p.askInsertOnly(ctx); err != nil {
		return err
	}
	selection := p.selection
	for pass := int32(1); ; pass++ {
		p.begin(pass)
		found := newDiffering(p.named)
		verdicts, err := p.compare(ctx, selection, pass == 1, found)
		if err != nil {
			return err
		}
		again, err := p.judge(ctx, verdicts, found)
		if err != nil {
			return err
		}
		if len(again) == 0 {
			break
		}
		if err := p.mend(ctx, again); err != nil {
			return err
		}
		if selection, err = p.touched(again); err != nil {
			return err
		}
		if len(selection.Include) == 0 {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.result
	r.Equal = r.GetTablesDifferent() == 0 && r.GetTablesNotMended() == 0
	return p.send(&applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Result{Result: r}})
}

func (p *repair) askInsertOnly(ctx context.Context) error {
	state, err := p.source.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{Set: p.source.set.name, Parameters: p.source.set.parameters})
	if err != nil {
		return fmt.Errorf("ask the source's logger for its tables: %w", err)
	}
	p.insertOnly = make(map[string]bool, len(state.GetInsertOnlyTables()))
	for _, name := range state.GetInsertOnlyTables() {
		p.insertOnly[name] = true
	}
	return nil
}

// compare finds what differs. It holds no snapshot and no lock when it returns: applying may have to wait for them.
func (p *repair) compare(ctx context.Context, selection schema.Selection, asked bool, found *differing) ([]*applierv1.TableVerification, error) {
	var verdicts []*applierv1.TableVerification
	v := p.verification(func(answer *applierv1.VerifyReplicationResponse) error {
		switch event := answer.GetEvent().(type) {
		case *applierv1.VerifyReplicationResponse_Table:
			verdicts = append(verdicts, event.Table)
		case *applierv1.VerifyReplicationResponse_Progress:
			return p.comparing(event.Progress)
		case *applierv1.VerifyReplicationResponse_Result:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.result.Position = event.Result.GetPosition()
		}
		return nil
	})
	v.selection, v.asked, v.differing = selection, asked, found
	return verdicts, v.run(ctx)
}

func (p *repair) verification(send func(*applierv1.VerifyReplicationResponse) error) *verification {
	return &verification{name: p.request.GetName(), purpose: "repair", runner: p.runner, source: p.source, maxHold: p.maxHold, send: send}
}

// judge ends the tables that are equal or cannot become so, and returns what differs in the others.
func (p *repair) judge(ctx context.Context, verdicts []*applierv1.TableVerification, found *differing) (again []*differingTable, err error) {
	for _, v := range verdicts {
		name := schema.Name{Schema: v.GetSchema(), Name: v.GetTable()}
		t := p.tables[name]
		if t == nil {
			t = &repairedTable{result: &applierv1.TableRepair{Schema: v.GetSchema(), Table: v.GetTable()}, settled: -1}
			p.tables[name] = t
		}
		t.result.Position, t.result.SourceRows, t.result.Unsynced = v.GetPosition(), v.GetSourceRows(), v.GetUnsynced()
		d := found.tables[name]
		if err := p.takeIn(ctx, t, v, d); err != nil {
			return nil, err
		}
		switch {
		case t.failed == "" && v.GetOutcome() == applierv1.TableOutcome_TABLE_OUTCOME_EQUAL && p.settles(t, v):
			again = append(again, d)
			continue
		case v.GetOutcome() == applierv1.TableOutcome_TABLE_OUTCOME_EQUAL:
			t.result.Outcome = applierv1.RepairOutcome_REPAIR_OUTCOME_EQUAL
			if t.changed() > 0 {
				t.result.Outcome = applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED
			}
		case v.GetOutcome() != applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT:
			t.fail(v.GetReason())
		case p.request.GetDryRun():
			t.result.Outcome = applierv1.RepairOutcome_REPAIR_OUTCOME_DIFFERENT
			t.result.Inserted, t.result.Updated, t.result.Deleted, t.result.Unexamined = v.GetMissing(), v.GetChanged(), v.GetExtra(), v.GetUnexamined()
			if err := p.rows(t, d.rows); err != nil {
				return nil, err
			}
		default:
			p.mayMend(t, v, d)
			if t.failed == "" {
				again = append(again, d)
				continue
			}
			t.fail(t.failed)
		}
		if err := p.done(t); err != nil {
			return nil, err
		}
	}
	return again, nil
}

// mayMend notes why a table that differs is not mended, if it is not.
func (p *repair) mayMend(t *repairedTable, v *applierv1.TableVerification, d *differingTable) {
	u, amount := d.unit, v.GetMissing()+v.GetExtra()+v.GetChanged()+v.GetUnexamined()
	switch {
	case amount < t.before || t.before == 0:
		t.strikes = 0
	case t.tried:
		t.strikes++
	}
	t.before, t.tried = amount, len(d.keys)+len(d.hashes) > 0
	stay := v.GetExtra() + v.GetChanged()
	switch {
	case t.failed != "":
	case p.onlyInserts(u) && stay > 0 && (len(u.key) == 0 || v.GetMissing()+v.GetUnexamined() == 0):
		t.failed = fmt.Sprintf("only inserts are replicated of this table, so %d rows that were updated or deleted on the source stay as they are here", stay)
		if len(u.key) == 0 && v.GetMissing() > 0 {
			t.failed += fmt.Sprintf("; without a key it cannot be told which of %d rows are missing and which are the updated ones", v.GetMissing())
		}
	case t.strikes >= maxStrikes:
		t.failed = fmt.Sprintf("%d rows differ again after they were mended: a trigger, or somebody who writes to the replica, changes them", amount)
	}
}

// onlyInserts tells whether only inserts come from one of a unit's tables.
func (p *repair) onlyInserts(u *verifyUnit) bool {
	return slices.ContainsFunc(u.sources, func(name schema.Name) bool { return p.insertOnly[name.SQL()] })
}

// touched selects the tables to compare again.
func (p *repair) touched(mended []*differingTable) (schema.Selection, error) {
	var names []string
	for _, d := range mended {
		if t := p.tables[d.unit.target]; t.failed != "" {
			t.fail(t.failed)
			if err := p.done(t); err != nil {
				return schema.Selection{}, err
			}
			continue
		}
		for _, source := range d.unit.sources {
			names = append(names, source.String())
		}
	}
	return schema.ParseSelection(names, nil)
}

func (t *repairedTable) changed() int64 {
	return t.result.GetInserted() + t.result.GetUpdated() + t.result.GetDeleted()
}

func (t *repairedTable) fail(reason string) {
	t.result.Outcome, t.result.Reason = applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED, reason
}

// done sends the outcome of a table.
func (p *repair) done(t *repairedTable) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.result
	switch t.result.GetOutcome() {
	case applierv1.RepairOutcome_REPAIR_OUTCOME_EQUAL:
		r.TablesEqual++
	case applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED:
		r.TablesMended++
	case applierv1.RepairOutcome_REPAIR_OUTCOME_DIFFERENT:
		r.TablesDifferent++
	default:
		r.TablesNotMended++
	}
	r.Inserted += t.result.GetInserted()
	r.Updated += t.result.GetUpdated()
	r.Deleted += t.result.GetDeleted()
	r.Resolved += t.result.GetResolved()
	r.Unsynced += t.result.GetUnsynced()
	return p.send(&applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Table{Table: t.result}})
}

// rows sends rows of a table until enough of them are named.
func (p *repair) rows(t *repairedTable, rows []*applierv1.RepairedRow) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range rows {
		if t.named == p.named {
			return nil
		}
		t.named++
		if err := p.send(&applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Row{Row: row}}); err != nil {
			return err
		}
	}
	return nil
}

func (p *repair) begin(pass int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = applierv1.RepairProgress{Pass: pass, Mended: p.progress.GetMended(), Phase: "opening snapshots"}
}

// comparing passes a comparison's progress on.
func (p *repair) comparing(v *applierv1.VerifyProgress) error {
	return p.tell(true, func(now *applierv1.RepairProgress) {
		now.Phase, now.Detail, now.Tables, now.TablesDone, now.Rows, now.EstimatedRows = v.GetPhase(), v.GetDetail(), v.GetTables(), v.GetTablesDone(), v.GetRows(), v.GetEstimatedRows()
	})
}

// tell changes the progress and sends it: at once, or when that is due.
func (p *repair) tell(atOnce bool, edit func(*applierv1.RepairProgress)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.progress)
	if !atOnce && time.Since(p.told) < verifyInterval {
		return nil
	}
	p.told = time.Now()
	return p.send(&applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Progress{Progress: proto.CloneOf(&p.progress)}})
}
