package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

const (
	publication  = "bench"
	subscription = "bench"
)

// native is PostgreSQL's own logical replication. Its tables have to be on the replica before.
type native struct {
	lab     *lab
	variant variant
	url     string // of the replica's database
	name    string // of the subscription and its slot
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
	sql := fmt.Sprintf("CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s",
		postgres.Ident(n.name), postgres.Literal(n.lab.primaryURL()), postgres.Ident(publication))
	if len(with) > 0 {
		sql += " WITH (" + strings.Join(with, ", ") + ")"
	}
	return execute(ctx, n.url, sql)
}

// copied returns when the first copy of every table is done.
func (n *native) copied(ctx context.Context) error {
	return withConn(ctx, n.url, func(conn *pgx.Conn) error {
		return poll(ctx, lookEvery, func() (bool, error) {
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

func (n *native) settled(context.Context, int64) error { return nil }

func (n *native) start(ctx context.Context) error {
	return execute(ctx, n.url, "ALTER SUBSCRIPTION "+postgres.Ident(n.name)+" ENABLE")
}

func (n *native) reached(ctx context.Context, marker int64) error {
	return visible(ctx, n.url, marker, n.failed)
}

// failed never gives up: a worker that failed is started again by PostgreSQL, and the deadline of the run is enough.
func (n *native) failed(context.Context) error { return nil }

func (n *native) begin() {}

// report tells the peak memory of the walsender and of the apply worker. PostgreSQL's processes count the pages of shared
// memory that they touched as their own, so what they hold of it now is taken off.
func (n *native) report(ctx context.Context, f figures) error {
	var sender int
	err := n.lab.conn.QueryRow(ctx, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active", n.name).Scan(&sender)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("find the walsender: %w", err)
	}
	var applier int
	err = withConn(ctx, n.url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT pid FROM pg_stat_subscription WHERE subname = $1 AND relid IS NULL AND pid IS NOT NULL "+
			"ORDER BY pid LIMIT 1", n.name).Scan(&applier)
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("find the apply worker: %w", err)
	}
	f.peak(primaryPeak, sender)
	f.peak(replicaPeak, applier)
	return nil
}

func (n *native) close() error { return nil }
