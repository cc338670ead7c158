package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/postgres"
)

const (
	application = "bench" // does not begin with the product's name: what its sessions cost is not Syncline's
	database    = "bench"
)

// settings are those of every server, whichever side it is on. Everything that makes commits durable stays at its default. The others
// keep what is not replication from disturbing it: a checkpoint or an autovacuum in one of two runs is noise. Tables are
// vacuumed and analyzed, and a checkpoint is made, before the clock starts. The pause between two starts of a native worker is
// five seconds by default; it would be all that is measured of a small load.
func (o options) settings() map[string]string {
	all := map[string]string{
		"shared_buffers":                    "512MB",
		"max_wal_size":                      "8GB",
		"checkpoint_timeout":                "1h",
		"autovacuum":                        "off",
		"max_connections":                   "200",
		"max_worker_processes":              "64",
		"max_logical_replication_workers":   "48",
		"max_sync_workers_per_subscription": "2",
		"max_wal_senders":                   "60",
		"max_replication_slots":             "60",
		"wal_retrieve_retry_interval":       "100ms",
	}
	maps.Copy(all, o.set)
	return all
}

// lab is a primary and a replica, fresh for each run.
type lab struct {
	primary, replica *pgserver.Server
	conn             *pgx.Conn // to the primary's database; for one goroutine at a time
	marks            int64
	markedAfter      uint64 // LSN: the transaction of the newest marker ends after it
}

// majorWithOrigins is the first version with a setting of its own for how many subscriptions a replica can have; its default is 10.
const majorWithOrigins = 18

// newLab starts both servers. The primary has one database. replicas are the names of the replica's; none means that no
// replica is needed. The caller closes the lab, also after an error.
func newLab(ctx context.Context, e experiment, replicas ...string) (*lab, error) {
	l := &lab{}
	config := pgserver.Config{Version: e.version, Settings: e.settings(), NoSync: e.noSync}
	if major, err := strconv.Atoi(e.version); err == nil && major >= majorWithOrigins && config.Settings["max_active_replication_origins"] == "" {
		config.Settings["max_active_replication_origins"] = config.Settings["max_replication_slots"] // which it was before
	}
	if v := e.contender.variant; v.workers > 0 {
		config.Settings["max_sync_workers_per_subscription"] = strconv.Itoa(v.workers)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		l.primary, err = startServer(groupCtx, config, database)
		return err
	})
	if len(replicas) > 0 {
		group.Go(func() (err error) {
			l.replica, err = startServer(groupCtx, config, replicas...)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return l, err
	}
	var err error
	if l.conn, err = postgres.Connect(ctx, l.primary.URL(database), application); err != nil {
		return l, err
	}
	_, err = l.conn.Exec(ctx, markerTable)
	return l, err
}

func startServer(ctx context.Context, config pgserver.Config, databases ...string) (*pgserver.Server, error) {
	s, err := pgserver.Create(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return s, err
	}
	return s, withConn(ctx, s.URL("postgres"), func(conn *pgx.Conn) error {
		for _, name := range databases {
			if _, err := conn.Exec(ctx, "CREATE DATABASE "+postgres.Ident(name)); err != nil {
				return fmt.Errorf("create database %s: %w", name, err)
			}
		}
		return nil
	})
}

func (l *lab) close() error {
	if l.conn != nil {
		disconnect(l.conn)
	}
	var errs []error
	for _, s := range []*pgserver.Server{l.primary, l.replica} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *lab) primaryURL() string { return l.primary.URL(database) }
func (l *lab) replicaURL() string { return l.replica.URL(database) }

// disconnectLimit bounds the farewell of a connection.
const disconnectLimit = 5 * time.Second

func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), disconnectLimit)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the farewell
}

// withConn connects for the time of one function.
func withConn(ctx context.Context, url string, do func(*pgx.Conn) error) error {
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	return do(conn)
}

// execute runs SQL, which may be several statements, in a session of its own.
func execute(ctx context.Context, url, sql string) error {
	return withConn(ctx, url, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, sql); err != nil {
			const most = 200
			return fmt.Errorf("run %.*s: %w", most, sql, err)
		}
		return nil
	})
}

// settle puts the tables of the primary and of the named databases on the replica, and the servers, into a state that is the
// same in every run.
func (l *lab) settle(ctx context.Context, replicas ...string) error {
	urls := []string{l.primaryURL()}
	for _, name := range replicas {
		urls = append(urls, l.replica.URL(name))
	}
	for _, url := range urls {
		for _, sql := range []string{"VACUUM ANALYZE", "CHECKPOINT"} {
			if err := execute(ctx, url, sql); err != nil {
				return err
			}
		}
	}
	return nil
}
