package applier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// mendUnits makes tables that hold rows already equal to the source's as of the snapshot, instead of filling them. Nothing is applied
// meanwhile. What is mended before it breaks off need not be mended again.
func (c *copier) mendUnits(ctx context.Context, units []*unit, snapshot copySnapshot) error {
	for _, u := range units {
		if !u.incremental() {
			continue
		}
		err := c.mendUnit(ctx, u, snapshot)
		var cannot *cannotCompareError
		switch {
		case err == nil:
		case errors.As(err, &cannot) && cannot.passes: // left to the next round
			c.say("comparing", rpc.Message(err))
			for _, t := range u.tables {
				if err := setTableState(ctx, c.conn, c.replication, t.name, tableWaiting); err != nil {
					return err
				}
			}
		case errors.As(err, &cannot):
			return failed(reasonCannotMend, "table %s of the replica cannot be made equal to the source's: %s; leave it out with --exclude-table, or let its rows be replaced", u.target, rpc.Message(err))
		default:
			return fmt.Errorf("mend table %s: %w", u.target, err)
		}
	}
	return nil
}

func (c *copier) mendUnit(ctx context.Context, u *unit, snapshot copySnapshot) error {
	conn, err := apply.ConnectLoader(ctx, c.url, c.replication, c.conn.PgConn().PID())
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	if _, err := conn.Exec(ctx, mendingSettings); err != nil {
		return fmt.Errorf("set up copy session: %w", err)
	}
	p, err := newRepair(c.runner, &applierv1.RepairReplicationRequest{Name: c.replication}, func(answer *applierv1.RepairReplicationResponse) error {
		if now := answer.GetProgress(); now != nil {
			c.say(now.GetPhase(), fmt.Sprintf("table %s, %d rows mended", u.target, now.GetMended()))
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.source, p.copying, p.named = c.source, true, 0
	if err := p.askInsertOnly(ctx); err != nil {
		return err
	}
	c.say("comparing", "table "+u.target.String())
	for {
		again, err := c.compareUnit(ctx, conn, p, u, snapshot)
		if err != nil {
			return err
		}
		if again == nil {
			break
		}
		for todo := batches([]*differingTable{again}); len(todo) > 0; {
			if todo, err = p.there(ctx, conn, snapshot, todo); err != nil {
				return err
			}
		}
		if reason := p.tables[u.target].failed; reason != "" {
			return &cannotCompareError{err: errors.New(reason)}
		}
	}
	for _, t := range u.tables {
		if err := c.finishTable(ctx, c.conn, &tableCopy{name: t.name}); err != nil {
			return err
		}
	}
	return nil
}

// compareUnit returns what differs in a unit; nil when nothing does that is to be mended.
func (c *copier) compareUnit(ctx context.Context, conn *pgx.Conn, p *repair, u *unit, snapshot copySnapshot) (*differingTable, error) {
	target, err := schema.Read(ctx, conn, everything)
	if err != nil {
		return nil, fmt.Errorf("read the replica's tables: %w", err)
	}
	var tables []*storedTable
	for _, t := range u.tables {
		read := *t
		read.state, read.position = tableCopied, snapshot.position
		tables = append(tables, &read)
	}
	found := newDiffering(0)
	units := verifyUnits(c.database, target, tables, snapshot.position.LSN)
	ownRowsOnly(units, tables, target, c.parameters)
	compared := units[0]
	if compared.outcome != applierv1.TableOutcome_TABLE_OUTCOME_UNSPECIFIED {
		return nil, &cannotCompareError{err: errors.New(compared.reason)}
	}
	found.know([]*verifyUnit{compared}, target)
	v := p.verification(func(*applierv1.VerifyReplicationResponse) error { return nil })
	result := &applierv1.TableVerification{Schema: u.target.Schema, Table: u.target.Name, Outcome: applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT}
	check := &tableCheck{unit: compared, source: c.source, snapshotID: snapshot.id, conn: conn, differing: found, result: result, read: func(rows int64) {
		c.status.quietly(func(s *status) { s.table(u.tables[0].name).rows += rows })
	}}
	c.status.quietly(func(s *status) { s.table(u.tables[0].name).rows = 0 })
	w := &verifyWorker{v, &snapshotPair{source: snapshot, from: c.source}, conn}
	if err := w.within(ctx, compared, check.run); err != nil {
		return nil, err
	}
	if !check.different() {
		return nil, nil //nolint:nilnil // nothing differs, which is no error
	}
	d := found.tables[compared.target]
	if p.onlyInserts(compared) && result.GetMissing()+result.GetUnexamined() == 0 {
		c.status.update(func(s *status) {
			s.warn(fmt.Sprintf("table %s: only its inserts are replicated, so %d rows stay that the source does not have as they are here", compared.target, result.GetExtra()+result.GetChanged()))
		})
		return nil, nil //nolint:nilnil // what differs stays
	}
	t := p.tables[compared.target]
	if t == nil {
		t = &repairedTable{result: &applierv1.TableRepair{}}
		p.tables[compared.target] = t
	}
	if p.mayMend(t, result, d); t.failed != "" {
		return nil, &cannotCompareError{err: errors.New(t.failed)}
	}
	return d, nil
}

// enterCopy makes sure that the unit's tables are still being copied from the snapshot, and keeps it so until the transaction ends.
func (m *mending) enterCopy(ctx context.Context, tx pgx.Tx) (commitTime change.Timestamp, err error) {
	for _, source := range m.unit.sources {
		var right bool
		err := tx.QueryRow(ctx, "SELECT state = 'copying' AND snapshot_id = $4 FROM syncline.tables WHERE replication = $1 AND schema_name = $2 AND table_name = $3 FOR SHARE",
			m.repair.request.GetName(), source.Schema, source.Name, m.snapshot.id).Scan(&right)
		if err == nil && !right || errors.Is(err, pgx.ErrNoRows) {
			return 0, fmt.Errorf("table %s: %w", source, errSuperseded)
		}
		if err != nil {
			return 0, fmt.Errorf("read tables of the replication: %w", err)
		}
	}
	fault.Point(FaultMending)
	return change.TimestampOf(time.Now()), nil
}

// reasonCannotMend stops a replication whose first copy cannot make a table equal.
const reasonCannotMend = "TABLE_NOT_MENDED"
