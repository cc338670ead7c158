package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
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
	pgbench, ok := l.primary.Binaries().Pgbench()
	if !ok {
		return 0, errors.New("run pgbench: it is not here; it comes with Debian's package of PostgreSQL")
	}
	each := max(1, e.sized(tpcbTransactions)/tpcbClients)
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
