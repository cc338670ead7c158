-- 'failed' is a replication with a schedule whose run has failed: it stays so until the next run, which its schedule or a user begins.
ALTER TABLE syncline.replications DROP CONSTRAINT replications_wanted_check;
ALTER TABLE syncline.replications ADD CONSTRAINT replications_wanted_check CHECK (wanted IN ('running', 'stopped', 'completed', 'failed'));

ALTER TABLE syncline.replications
    -- Grows with each start, whoever decides it: by this the other appliers of this database see that there was one.
    ADD COLUMN starts bigint NOT NULL DEFAULT 1,
    -- The applier that runs it, or did last.
    ADD COLUMN applier text NOT NULL DEFAULT '',
    -- By the schedule: when the next run is due, when it begins (later by a random time), how many before it were missed, and how many the
    -- schedule has begun.
    ADD COLUMN next_due timestamptz,
    ADD COLUMN next_run timestamptz,
    ADD COLUMN missed integer NOT NULL DEFAULT 0,
    ADD COLUMN scheduled_runs integer NOT NULL DEFAULT 0;

-- What a replication has done since it was created, and where it is.
CREATE VIEW syncline.run_totals AS
    SELECT r.name, r.transactions + coalesce(p.transactions, 0) AS transactions, r.changes + coalesce(p.changes, 0) AS changes,
        r.copied_rows + coalesce((SELECT sum(c.rows) FROM syncline.chunks c WHERE c.replication = r.name), 0)::bigint AS rows, p.log_id, p.lsn
    FROM syncline.replications r LEFT JOIN syncline.positions p ON p.replication = r.name;

-- Every run: of a replication of mode once, of a transient one, and of a continuous one from its start to its stop.
CREATE TABLE syncline.job_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replication text NOT NULL,
    trigger text NOT NULL,
    due_at timestamptz,
    began_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    result text NOT NULL DEFAULT '',
    code text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    side text NOT NULL DEFAULT '',
    faults integer NOT NULL DEFAULT 0,
    applier text NOT NULL,
    takeovers integer NOT NULL DEFAULT 0,
    missed integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,
    -- The totals at its begin, and how much more they were at its end.
    from_transactions bigint NOT NULL,
    from_changes bigint NOT NULL,
    from_rows bigint NOT NULL,
    from_log_id text,
    from_lsn pg_lsn,
    transactions bigint,
    changes bigint,
    rows bigint,
    to_log_id text,
    to_lsn pg_lsn
);
-- One at a time for each replication.
CREATE UNIQUE INDEX job_runs_open ON syncline.job_runs (replication) WHERE ended_at IS NULL;
CREATE INDEX ON syncline.job_runs (replication, id);
CREATE INDEX ON syncline.job_runs (began_at);

-- Runs as they are shown: those that go on with what they have done so far.
CREATE VIEW syncline.shown_runs AS
    SELECT j.id, j.replication, j.trigger, j.due_at, j.began_at, j.ended_at, j.result, j.code, j.message, j.side, j.faults, j.applier, j.takeovers, j.missed, j.skipped,
        coalesce(j.transactions, t.transactions - j.from_transactions, 0) AS transactions, coalesce(j.changes, t.changes - j.from_changes, 0) AS changes,
        coalesce(j.rows, t.rows - j.from_rows, 0) AS rows, coalesce(j.from_log_id || '@' || j.from_lsn::text, '') AS from_position,
        CASE WHEN j.ended_at IS NULL THEN coalesce(t.log_id || '@' || t.lsn::text, '') ELSE coalesce(j.to_log_id || '@' || j.to_lsn::text, '') END AS to_position
    FROM syncline.job_runs j LEFT JOIN syncline.run_totals t ON t.name = j.replication AND j.ended_at IS NULL;

---- create above / drop below ----

DROP VIEW syncline.shown_runs;
DROP TABLE syncline.job_runs;
DROP VIEW syncline.run_totals;
UPDATE syncline.replications SET wanted = 'running' WHERE wanted = 'failed';
ALTER TABLE syncline.replications DROP CONSTRAINT replications_wanted_check;
ALTER TABLE syncline.replications ADD CONSTRAINT replications_wanted_check CHECK (wanted IN ('running', 'stopped', 'completed'));
ALTER TABLE syncline.replications DROP COLUMN starts, DROP COLUMN applier, DROP COLUMN next_due, DROP COLUMN next_run, DROP COLUMN missed, DROP COLUMN scheduled_runs;
