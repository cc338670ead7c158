package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	tpcbBranches     = 10
	tpcbTransactions = 100_000
	tpcbClients      = 8
	tpcbChanges      = 4 // row changes in a transaction
)

// tpcbTables are pgbench's own. Its history has no key; with this identity it can be published like any other table, and
// since it only sees inserts that costs nothing.
const tpcbTables = `
	CREATE TABLE public.pgbench_branches (bid integer PRIMARY KEY, bbalance integer, filler character(88)) WITH (fillfactor = 100);
	CREATE TABLE public.pgbench_tellers (tid integer PRIMARY KEY, bid integer, tbalance integer, filler character(84)) WITH (fillfactor = 100);
	CREATE TABLE public.pgbench_accounts (aid integer PRIMARY KEY, bid integer, abalance integer, filler character(84)) WITH (fillfactor = 100);
	CREATE TABLE public.pgbench_history (tid integer, bid integer, aid integer, delta integer, mtime timestamp, filler character(22));
	ALTER TABLE public.pgbench_history REPLICA IDENTITY FULL`

func tpcbLoad() workload {
	return workload{name: "tpcb", tables: tpcbTables, fill: fillTPCB, load: runTPCB}
}

func (e experiment) branches() int { return e.sized(tpcbBranches) }

// fillTPCB writes the rows that `pgbench -i` would.
func fillTPCB(ctx context.Context, e experiment, l *lab) error {
	_, err := l.conn.Exec(ctx, fmt.Sprintf(`
		INSERT INTO public.pgbench_branches SELECT i, 0, '' FROM generate_series(1, %[1]d) i;
		INSERT INTO public.pgbench_tellers SELECT i, (i - 1) / 10 + 1, 0, '' FROM generate_series(1, %[1]d * 10) i;
		INSERT INTO public.pgbench_accounts SELECT i, (i - 1) / 100000 + 1, 0, '' FROM generate_series(1, %[1]d * 100000) i`, e.branches()))
	if err != nil {
		return fmt.Errorf("fill pgbench's tables: %w", err)
	}
	return nil
}

// runTPCB runs pgbench's default script.
func runTPCB(ctx context.Context, e experiment, l *lab) (int, error) {
	each := max(1, e.sized(tpcbTransactions)/tpcbClients)
	pgbench, ok := l.primary.Binaries().Pgbench()
	if !ok {
		return each * tpcbClients * tpcbChanges, runOwnTPCB(ctx, l, each, e.branches())
	}
	cmd := exec.CommandContext(ctx, pgbench, "--no-vacuum", "--client", strconv.Itoa(tpcbClients), "--jobs", strconv.Itoa(min(tpcbClients, runtime.NumCPU())),
		"--transactions", strconv.Itoa(each), "--protocol", "prepared", "--random-seed", "1", "--scale", strconv.Itoa(e.branches()), l.primaryURL())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("run pgbench: %w: %s", err, out)
	}
	return each * tpcbClients * tpcbChanges, nil
}

// runOwnTPCB runs the transactions of pgbench's default script where pgbench itself is missing.
func runOwnTPCB(ctx context.Context, l *lab, each, branches int) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for client := range tpcbClients {
		random := rand.New(rand.NewPCG(1, uint64(client)))
		group.Go(func() error {
			return withConn(groupCtx, l.primaryURL(), func(conn *pgx.Conn) error {
				for range each {
					if err := pgx.BeginFunc(groupCtx, conn, func(tx pgx.Tx) error { return tpcb(groupCtx, tx, random, branches) }); err != nil {
						return fmt.Errorf("run a TPC-B transaction: %w", err)
					}
				}
				return nil
			})
		})
	}
	return group.Wait()
}

func tpcb(ctx context.Context, tx pgx.Tx, random *rand.Rand, branches int) error {
	account, teller, branch := random.IntN(branches*100_000)+1, random.IntN(branches*10)+1, random.IntN(branches)+1
	delta := random.IntN(10_001) - 5000
	if _, err := tx.Exec(ctx, "UPDATE public.pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2", delta, account); err != nil {
		return err
	}
	var balance int
	if err := tx.QueryRow(ctx, "SELECT abalance FROM public.pgbench_accounts WHERE aid = $1", account).Scan(&balance); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "UPDATE public.pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2", delta, teller); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "UPDATE public.pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2", delta, branch); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO public.pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, now())", teller, branch, account, delta)
	return err
}
