package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

const publication = "bench"

// native is PostgreSQL's own logical replication. Its tables have to be on the replica before.
type native struct {
	lab     *lab
	variant variant
	url     string // of the replica's database
	name    string // of the subscription and its slot

	cpuBefore map[int]float64 // by process id
	sentTo    map[int]float64 // bytes, by port of the other end
}

func (n *native) replicate(ctx context.Context) error {
	if err := n.subscribe(ctx); err != nil {
		return err
	}
	return n.copied(ctx)
}

// publish makes the publication that all subscriptions share.
func publish(ctx context.Context, l *lab) error {
	if _, err := l.conn.Exec(ctx, "CREATE PUBLICATION "+postgres.Ident(publication)+" FOR ALL TABLES"); err != nil {
		return fmt.Errorf("create publication: %w", err)
	}
	return nil
}

func (n *native) subscribe(ctx context.Context) error {
	var published bool
	err := n.lab.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)", publication).Scan(&published)
	if err != nil {
		return fmt.Errorf("look for the publication: %w", err)
	}
	if !published {
		if err := publish(ctx, n.lab); err != nil {
			return err
		}
	}
	var with []string
	options := n.variant.subscription(n.lab.replica.Binaries().Major)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		with = append(with, name+" = "+options[name])
	}
	url, err := n.variant.connection(n.lab.primaryURL())
	if err != nil {
		return err
	}
	sql := fmt.Sprintf("CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s",
		postgres.Ident(n.name), postgres.Literal(url), postgres.Ident(publication))
	if len(with) > 0 {
		sql += " WITH (" + strings.Join(with, ", ") + ")"
	}
	return execute(ctx, n.url, sql)
}

// copied returns when the first copy of every table is done.
func (n *native) copied(ctx context.Context) error {
	return withConn(ctx, n.url, func(conn *pgx.Conn) error {
		return poll(ctx, lookAtCopyEvery, func() (bool, error) {
			var ready bool
			err := conn.QueryRow(ctx, `SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel r
				JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname = $1`, n.name).Scan(&ready)
			return ready, err
		})
	})
}

func (n *native) stop(ctx context.Context, _ depth) error {
	if err := execute(ctx, n.url, "ALTER SUBSCRIPTION "+postgres.Ident(n.name)+" DISABLE"); err != nil {
		return err
	}
	return poll(ctx, lookEvery, func() (bool, error) {
		var active bool
		err := n.lab.conn.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", n.name).Scan(&active)
		return !active, err
	})
}

func (n *native) settled(context.Context) error { return nil }

func (n *native) start(ctx context.Context) error {
	return execute(ctx, n.url, "ALTER SUBSCRIPTION "+postgres.Ident(n.name)+" ENABLE")
}

func (n *native) reached(ctx context.Context, marker int64) error {
	return visible(ctx, n.url, marker, n.failed)
}

// failed never gives up: a worker that failed is started again by PostgreSQL, and the deadline of the run is enough.
func (n *native) failed(context.Context) error { return nil }

func (n *native) begin(ctx context.Context) error {
	senders, appliers, err := n.processes(ctx)
	if err != nil {
		return err
	}
	n.cpuBefore = map[int]float64{}
	for _, pid := range append(senders, appliers...) {
		n.cpuBefore[pid] = ownCPU(pid)
	}
	n.sentTo, err = sent(n.lab.primary.Port())
	return err
}

// processes are those that work for the subscription now: the walsender, and the apply worker with its helpers.
func (n *native) processes(ctx context.Context) (senders, appliers []int, err error) {
	senders, err = pids(ctx, n.lab.conn, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active", n.name)
	if err != nil {
		return nil, nil, err
	}
	err = withConn(ctx, n.url, func(conn *pgx.Conn) (err error) {
		appliers, err = pids(ctx, conn, "SELECT pid FROM pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL", n.name)
		return err
	})
	return senders, appliers, err
}

func pids(ctx context.Context, conn *pgx.Conn, query string, args ...any) ([]int, error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return found, nil
}

// report tells CPU time, peak memory and bytes on the wire of the processes that are still there.
func (n *native) report(ctx context.Context, f figures) error {
	senders, appliers, err := n.processes(ctx)
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		pids      []int
		cpu, peak string
	}{{senders, sourceCPU, primaryPeak}, {appliers, applierCPU, replicaPeak}} {
		for _, pid := range kind.pids {
			f[kind.cpu] += ownCPU(pid) - n.cpuBefore[pid]
			f.peak(kind.peak, pid)
		}
	}
	ports, err := pids(ctx, n.lab.conn, "SELECT client_port FROM pg_stat_replication")
	if err != nil {
		return err
	}
	return f.wire(n.lab.primary.Port(), n.sentTo, ports)
}

func (n *native) close() error { return nil }
