package e2e

import (
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

const verifyLargeTables = `
CREATE TABLE numbered (id bigint PRIMARY KEY, customer integer, amount numeric(10,2), note text, at timestamptz);
INSERT INTO numbered SELECT n, n % 1000, n / 7.0, md5(n::text), timestamptz '2026-01-01' + n * interval '1 second' FROM generate_series(1, 1000000) n;
CREATE TABLE composite (tenant integer, id integer, note text, PRIMARY KEY (tenant, id));
INSERT INTO composite SELECT n % 4, n, md5(n::text) FROM generate_series(1, 400000) n;
CREATE TABLE named (name text PRIMARY KEY, note text);
INSERT INTO named SELECT md5(n::text), 'note' FROM generate_series(1, 400000) n;
CREATE TABLE keyless (a integer, note text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO keyless SELECT CASE WHEN n > 200000 THEN 0 ELSE n END, 'note' FROM generate_series(1, 400000) n;
CREATE TABLE wide (id integer PRIMARY KEY, body text);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide SELECT n, repeat('0123456789abcdef', 1 << 20) FROM generate_series(1, 6) n;
ANALYZE;`

// TestVerifyMemory: a verification holds neither tables nor differences, however many there are; it holds a row.
func TestVerifyMemory(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL, targetURL := source.Database(t), target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), verifyLargeTables)
	c := startTrio(t, sourceURL, targetURL)
	defer c.figures.print()
	c.applier.mustCreate("all", c.logger.grpc)
	c.applier.waitState("all", 5*time.Minute, applierv1.State_STATE_RUNNING)
	here := pgtest.Connect(t, targetURL)
	const widest = 16 << 20
	verify := func(name string, edits ...func(*applierv1.VerifyReplicationRequest)) (v verified) {
		t.Helper()
		c.measure(t, name, widest, func() { v = c.applier.mustVerify("all", edits...) })
		return v
	}
	for _, table := range []string{"numbered", "composite", "named", "keyless", "wide"} {
		verify(table, tables("public."+table)).requireEqual(t)
	}
	if v := verify("all"); v.result.GetRows() != 2_200_006 || !v.result.GetEqual() || len(v.progress) == 0 {
		t.Errorf("result %v after %d reports", v.result, len(v.progress))
	}
	pgtest.Exec(t, here, `UPDATE numbered SET note = 'x'; DELETE FROM composite; UPDATE named SET name = name || 'x'; UPDATE keyless SET note = 'x';
		INSERT INTO composite SELECT 1, n, 'extra' FROM generate_series(500001, 900000) n; UPDATE wide SET body = body || 'x'`)
	v := verify("all different", func(r *applierv1.VerifyReplicationRequest) { r.MaxDifferences = 10_000 })
	for name, one := range v.tables {
		found := one.GetMissing() + one.GetExtra() + one.GetChanged()
		if one.GetOutcome() != applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT || found < 6 || found+one.GetUnexamined() < max(one.GetSourceRows(), one.GetReplicaRows()) {
			t.Errorf("table %s: %v", name, one)
		}
	}
	t.Logf("%d differences are described, %d counted", len(v.differences), v.result.GetDifferences())
}
