package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestAlterTables alters tables on both sides while the primary is written to, each time in the order in which neither side
// ever lacks what the other one sends. The replication goes on without anybody's help and without a loss.
func TestAlterTables(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL, targetURL := source.Database(t), target.Database(t)
	primary, replica := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	pgtest.Exec(t, primary, `
		CREATE TABLE grown (id bigint PRIMARY KEY, v text);
		CREATE TABLE wider (id bigint PRIMARY KEY, n integer NOT NULL);
		CREATE TABLE loose (code integer NOT NULL UNIQUE, v text); ALTER TABLE loose REPLICA IDENTITY FULL;
		CREATE TABLE plain (id bigint PRIMARY KEY, n integer NOT NULL, double integer GENERATED ALWAYS AS (n * 2) STORED);
		INSERT INTO grown SELECT n, 'begin' FROM generate_series(1, 500) n;
		INSERT INTO wider SELECT n, n FROM generate_series(1, 500) n;
		INSERT INTO loose SELECT n, 'begin' FROM generate_series(1, 500) n;
		INSERT INTO plain SELECT n, n FROM generate_series(1, 500) n`)
	p, r := startPrimary(t, sourceURL), startReplica(t, targetURL)
	r.mustCreate("all", p.grpc)
	r.waitApplied("all", time.Minute)
	stop := writeSteadily(t, sourceURL)

	for _, test := range []struct{ name, onReplica, onPrimary, afterwards, write string }{
		{
			name: "a column is added", onReplica: "ALTER TABLE grown ADD colour text", onPrimary: "ALTER TABLE grown ADD colour text",
			write: "INSERT INTO grown VALUES (1000, 'one', 'red'); UPDATE grown SET colour = 'blue' WHERE id % 3 = 0; INSERT INTO grown SELECT n, 'many', 'green' FROM generate_series(2000, 3000) n",
		},
		{
			name: "one more", onReplica: "ALTER TABLE grown ADD size int DEFAULT 7", onPrimary: "ALTER TABLE grown ADD size int DEFAULT 7",
			write: "INSERT INTO grown (id, size) VALUES (1001, 1); UPDATE grown SET size = id WHERE id % 5 = 0",
		},
		{
			name: "a column is dropped", onPrimary: "ALTER TABLE grown DROP colour", afterwards: "ALTER TABLE grown DROP colour",
			write: "INSERT INTO grown (id, size) VALUES (1002, 1); UPDATE grown SET v = 'no colour' WHERE id % 7 = 0; DELETE FROM grown WHERE id % 11 = 0",
		},
		{
			name: "a type is widened", onReplica: "ALTER TABLE wider ALTER n TYPE bigint", onPrimary: "ALTER TABLE wider ALTER n TYPE bigint",
			write: "INSERT INTO wider VALUES (1000, 1::bigint << 40); UPDATE wider SET n = 1::bigint << 41 WHERE id % 4 = 0; UPDATE wider SET n = n + 1",
		},
		{
			name: "a key is dropped", onReplica: "ALTER TABLE loose DROP CONSTRAINT loose_code_key", onPrimary: "ALTER TABLE loose DROP CONSTRAINT loose_code_key",
			write: `INSERT INTO loose SELECT n, 'a' FROM generate_series(1000, 1100) n; INSERT INTO loose SELECT n, 'b' FROM generate_series(1000, 1100) n;
				DELETE FROM loose WHERE code >= 1000 AND v = 'a'; INSERT INTO loose SELECT code, 'twice' FROM loose; UPDATE loose SET v = 'changed' WHERE v = 'twice' AND code % 2 = 0`,
		},
		{ // An update of the column fails in the session that does not know of it.
			name: "a column becomes an identity on the replica alone", onReplica: "ALTER TABLE wider ALTER n ADD GENERATED ALWAYS AS IDENTITY",
			write: "UPDATE wider SET n = n + 5 WHERE id % 2 = 0; INSERT INTO wider VALUES (1001, 5)",
		},
		{ // Nobody writes to it meanwhile: the column would lag behind on one side.
			name: "a generated column becomes an ordinary one", onReplica: "ALTER TABLE plain ALTER double DROP EXPRESSION", onPrimary: "ALTER TABLE plain ALTER double DROP EXPRESSION",
			write: "INSERT INTO plain VALUES (1000, 1, 17); UPDATE plain SET double = 18 WHERE id % 3 = 0",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, step := range []struct {
				conn *pgx.Conn
				sql  string
			}{{replica, test.onReplica}, {primary, test.onPrimary}, {primary, test.write}} {
				pgtest.Exec(t, step.conn, step.sql)
			}
			r.waitGoing("all", time.Minute)
			pgtest.Exec(t, replica, test.afterwards)
			pgtest.Exec(t, primary, "UPDATE grown SET v = v || '.' WHERE id < 100; UPDATE wider SET n = n + 1 WHERE id < 100")
			r.waitGoing("all", time.Minute)
		})
	}
	stop()
	r.waitGoing("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// waitGoing waits until what was committed on the source is applied. A replication that has failed does not go on by itself.
func (n *node) waitGoing(name string, timeout time.Duration) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := n.applier().WaitReplication(ctx, &applierv1.WaitReplicationRequest{Name: name}); err != nil {
		state, _ := n.get(name)
		n.t.Fatalf("%v: %s %s %s", err, state.GetState(), state.GetReasonCode(), state.GetReason())
	}
}

// writeSteadily changes rows of the tables without a pause until the function that it returns is called.
func writeSteadily(t testing.TB, url string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			conn, err := pgx.Connect(context.WithoutCancel(ctx), url)
			if err != nil {
				return fmt.Errorf("write steadily: %w", err)
			}
			defer conn.Close(context.Background())
			for n := 0; ctx.Err() == nil; n++ {
				// One that is broken off may be committed behind our back.
				_, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf(`INSERT INTO grown (id, v) VALUES (-%[1]d, 'steady'); UPDATE grown SET v = 'more' WHERE id = -%[1]d;
					UPDATE wider SET n = n + 1 WHERE id = 1 + %[1]d %% 500`, n+1))
				if err != nil {
					return fmt.Errorf("write steadily: %w", err)
				}
			}
			return nil
		}()
	}()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}
