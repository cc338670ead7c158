-- How many changes were set aside since the replication was created: the count moves in the target transaction that sets them aside.
ALTER TABLE syncline.positions ADD COLUMN set_aside bigint NOT NULL DEFAULT 0;
ALTER TABLE syncline.replications ADD COLUMN set_aside bigint NOT NULL DEFAULT 0; -- by positions that are forgotten
ALTER TABLE syncline.job_runs ADD COLUMN from_set_aside bigint NOT NULL DEFAULT 0, ADD COLUMN set_aside bigint;

DROP VIEW syncline.shown_runs;
DROP VIEW syncline.run_totals;

CREATE VIEW syncline.run_totals AS
    SELECT r.name, r.transactions + coalesce(p.transactions, 0) AS transactions, r.changes + coalesce(p.changes, 0) AS changes,
        r.copied_rows + coalesce((SELECT sum(c.rows) FROM syncline.chunks c WHERE c.replication = r.name), 0)::bigint AS rows,
        r.set_aside + coalesce(p.set_aside, 0) AS set_aside, p.log_id, p.lsn
    FROM syncline.replications r LEFT JOIN syncline.positions p ON p.replication = r.name;

CREATE VIEW syncline.shown_runs AS
    SELECT j.id, j.replication, j.trigger, j.due_at, j.began_at, j.ended_at, j.result, j.code, j.message, j.side, j.faults, j.applier, j.takeovers, j.missed, j.skipped,
        coalesce(j.transactions, t.transactions - j.from_transactions, 0) AS transactions, coalesce(j.changes, t.changes - j.from_changes, 0) AS changes,
        coalesce(j.rows, t.rows - j.from_rows, 0) AS rows, coalesce(j.set_aside, t.set_aside - j.from_set_aside, 0) AS set_aside,
        coalesce(j.from_log_id || '@' || j.from_lsn::text, '') AS from_position,
        CASE WHEN j.ended_at IS NULL THEN coalesce(t.log_id || '@' || t.lsn::text, '') ELSE coalesce(j.to_log_id || '@' || j.to_lsn::text, '') END AS to_position
    FROM syncline.job_runs j LEFT JOIN syncline.run_totals t ON t.name = j.replication AND j.ended_at IS NULL;

-- Changes that were applied with other values than the source's, written in the target transaction that applied them. columns is an array of
-- {name, source, written}, long values cut.
CREATE TABLE syncline.unsynced_edits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replication text NOT NULL,
    entry bigint NOT NULL,
    principal text NOT NULL,
    edited_at timestamptz NOT NULL DEFAULT now(),
    schema_name text NOT NULL,
    table_name text NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    log_id text NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    columns jsonb NOT NULL
);
CREATE INDEX ON syncline.unsynced_edits (replication, id);

---- create above / drop below ----

DROP TABLE syncline.unsynced_edits;
DROP VIEW syncline.shown_runs;
DROP VIEW syncline.run_totals;
ALTER TABLE syncline.job_runs DROP COLUMN from_set_aside, DROP COLUMN set_aside;
ALTER TABLE syncline.replications DROP COLUMN set_aside;
ALTER TABLE syncline.positions DROP COLUMN set_aside;

CREATE VIEW syncline.run_totals AS
    SELECT r.name, r.transactions + coalesce(p.transactions, 0) AS transactions, r.changes + coalesce(p.changes, 0) AS changes,
        r.copied_rows + coalesce((SELECT sum(c.rows) FROM syncline.chunks c WHERE c.replication = r.name), 0)::bigint AS rows, p.log_id, p.lsn
    FROM syncline.replications r LEFT JOIN syncline.positions p ON p.replication = r.name;

CREATE VIEW syncline.shown_runs AS
    SELECT j.id, j.replication, j.trigger, j.due_at, j.began_at, j.ended_at, j.result, j.code, j.message, j.side, j.faults, j.applier, j.takeovers, j.missed, j.skipped,
        coalesce(j.transactions, t.transactions - j.from_transactions, 0) AS transactions, coalesce(j.changes, t.changes - j.from_changes, 0) AS changes,
        coalesce(j.rows, t.rows - j.from_rows, 0) AS rows, coalesce(j.from_log_id || '@' || j.from_lsn::text, '') AS from_position,
        CASE WHEN j.ended_at IS NULL THEN coalesce(t.log_id || '@' || t.lsn::text, '') ELSE coalesce(j.to_log_id || '@' || j.to_lsn::text, '') END AS to_position
    FROM syncline.job_runs j LEFT JOIN syncline.run_totals t ON t.name = j.replication AND j.ended_at IS NULL;
