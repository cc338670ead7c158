package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/process"
)

const (
	clerks         = 3                     // sessions that do the company's business
	clerkPause     = 25 * time.Millisecond // of each, between two transactions
	pgbenchClients = 2
	pgbenchRate    = 200 // transactions a second in all
)

// load is everybody who writes to the primary.
type load struct {
	business business
	url      string
	pgbench  string // path, "" for none

	committed atomic.Int64
	stop      context.CancelFunc
	done      chan struct{}
	err       error // to be read after done
}

// startLoad starts to write. It goes on until finish.
func startLoad(ctx context.Context, b business, url, pgbench string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{business: b, url: url, pgbench: pgbench, stop: cancel, done: make(chan struct{})}
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range clerks {
		group.Go(func() error { return l.clerk(groupCtx, rand.New(rand.NewPCG(42, uint64(i)))) })
	}
	if pgbench != "" {
		group.Go(func() error { return l.runPgbench(groupCtx) })
	}
	go func() {
		defer close(l.done)
		l.err = group.Wait()
	}()
	return l
}

// finish ends the writing, and returns when nothing is under way on the primary any more.
func (l *load) finish(ctx context.Context) error {
	l.stop()
	<-l.done
	if l.err != nil && !errors.Is(l.err, context.Canceled) {
		return l.err
	}
	conn, err := postgres.Connect(ctx, l.url, application)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	// A session whose client has gone finishes its statement all the same.
	for {
		var left int
		err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND application_name IN ('pgbench', $1) AND pid <> pg_backend_pid()`, application).Scan(&left)
		if err != nil {
			return fmt.Errorf("wait for the last transactions: %w", err)
		}
		if left == 0 {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (l *load) runPgbench(ctx context.Context) error {
	var out bytes.Buffer
	cmd := exec.Command(l.pgbench, "--no-vacuum", "--client", strconv.Itoa(pgbenchClients), "--rate", strconv.Itoa(pgbenchRate),
		"--time", strconv.Itoa(int((30 * 24 * time.Hour).Seconds())), l.url)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := process.Launch(cmd)
	if err != nil {
		return fmt.Errorf("start pgbench: %w", err)
	}
	select {
	case <-p.Done():
		return fmt.Errorf("pgbench ended: %w: %s", p.Err(), out.Bytes())
	case <-ctx.Done():
		return p.Kill()
	}
}

// clerk does one transaction after the other.
func (l *load) clerk(ctx context.Context, r *rand.Rand) error {
	conn, err := postgres.Connect(ctx, l.url, application)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	for ctx.Err() == nil {
		deed := deeds[r.IntN(len(deeds))]
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return deed.do(ctx, tx, l.business, r) })
		switch {
		case err == nil:
			l.committed.Add(1)
		case errors.Is(err, errChangedMind), ctx.Err() != nil, postgres.Code(err) == deadlockDetected:
		default:
			return fmt.Errorf("%s: %w", deed.name, err)
		}
		pause(ctx, time.Duration(r.ExpFloat64()*float64(clerkPause)))
	}
	return nil
}

const deadlockDetected = "40P01"

// pause waits and tells whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
