package demo

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

const (
	// The kill comes after this part of the live time, as soon as the replica has caught up, at the latest after that part.
	// The applier is started again a moment later.
	killAfter, killAtLatest = 0.4, 0.7
	caughtUpBytes           = 1 << 20
	deadTime                = 2 * time.Second

	waitLimit = 3 * time.Minute
	lineForm  = "  %-9s %-12s %-12s %9s  %6s  %8s  %12s"
)

// table is the state of the primary and of its replicas.
func (d *demo) table() []string {
	lines := []string{fmt.Sprintf(lineForm, "", "state", "position", "lag bytes", "lag s", "rows/s", "transactions")}
	state, rate := d.source.now()
	if state == nil {
		lines = append(lines, fmt.Sprintf(lineForm, "primary", "away", "", "", "", "", ""))
	} else {
		lines = append(lines, fmt.Sprintf(lineForm, "primary", state.GetState(), change.LSN(state.GetPosition().GetLsn()),
			size(state.GetLagBytes()), "", count(int64(rate)), count(state.GetTransactions())))
	}
	for _, w := range d.watchers {
		r, err := w.replication()
		lines = append(lines, replicaLine(w.node.name, r, err))
	}
	return lines
}

func replicaLine(name string, r *applierv1.Replication, err error) string {
	position := change.LSN(r.GetPosition().GetLsn()).String()
	if err != nil || r == nil {
		return fmt.Sprintf(lineForm, name, "away", position, "", "", "", "")
	}
	lag := "?"
	if r.LagSeconds != nil {
		lag = fmt.Sprintf("%.1f", r.GetLagSeconds())
	}
	return fmt.Sprintf(lineForm, name, stateWord(r.GetState()), position, size(r.GetLagBytes()), lag,
		count(int64(r.GetChangesPerSecond())), count(r.GetTransactions()))
}

// live shows the table while the primary is written to, and kills one applier on the way.
func (d *demo) live(ctx context.Context) error {
	began := time.Now()
	victim := d.replicas[0]
	killed, restarted := time.Time{}, false
	for time.Since(began) < d.options.Duration || !restarted {
		if err := d.check(restarted || killed.IsZero()); err != nil {
			return err
		}
		d.screen.show(d.table()...)
		switch {
		case killed.IsZero() && d.killDue(time.Since(began)):
			at, _ := d.watchers[0].replication()
			if err := victim.process.Kill(); err != nil {
				return err
			}
			killed = time.Now()
			d.screen.say("  !! kill -9 of the applier of %s (pid %d) at %s", victim.name, victim.process.PID(), change.LSN(at.GetPosition().GetLsn()))
		case !killed.IsZero() && !restarted && time.Since(killed) > deadTime:
			restarted = true
			if err := victim.start(ctx); err != nil {
				return fmt.Errorf("start the applier of %s again: %w", victim.name, err)
			}
			d.screen.say("  !! started again (pid %d): it goes on after the last transaction that it applied", victim.process.PID())
		}
		if !pause(ctx, redraw) {
			return ctx.Err()
		}
	}
	return nil
}

// killDue tells whether it is time for the kill.
func (d *demo) killDue(elapsed time.Duration) bool {
	part := elapsed.Seconds() / d.options.Duration.Seconds()
	r, err := d.watchers[0].replication()
	caughtUp := err == nil && r.GetLagBytes() < caughtUpBytes
	return part > killAfter && caughtUp || part > killAtLatest
}

// check finds what does not pass by itself. all says that no process is away on purpose.
func (d *demo) check(all bool) error {
	select {
	case <-d.load.done:
		if d.load.err != nil {
			return fmt.Errorf("write to the primary: %w", d.load.err)
		}
	default:
	}
	for _, n := range d.nodes() {
		if n.process.Ended() && (all || n != d.replicas[0]) {
			return &brokenError{n, fmt.Errorf("ended: %w", n.process.Err())}
		}
	}
	for _, w := range d.watchers {
		if r, err := w.replication(); err == nil && r.GetState() == applierv1.State_STATE_FAILED {
			return fmt.Errorf("%s: %w: %s (%s)", w.node.name, errFailed, r.GetReason(), r.GetReasonCode())
		}
	}
	return nil
}

// drain waits until every replica has what was committed before the call.
func (d *demo) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	results := make(chan error, len(d.replicas))
	for _, n := range d.replicas {
		go func() {
			_, err := applierv1.NewApplierServiceClient(n.conn).WaitReplication(ctx,
				&applierv1.WaitReplicationRequest{Name: replicationName, Timeout: durationpb.New(waitLimit)})
			if err != nil {
				err = fmt.Errorf("%s did not reach the primary's last transaction: %s", n.name, why(err))
			}
			results <- err
		}()
	}
	for left := len(d.replicas); left > 0; {
		select {
		case err := <-results:
			if err != nil {
				return err
			}
			left--
		case <-time.After(redraw):
			if err := d.check(true); err != nil {
				return err
			}
			d.screen.show(d.table()...)
		}
	}
	d.screen.show(d.table()...)
	return nil
}
