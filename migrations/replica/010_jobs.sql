-- 'completed' is a replication of mode once whose run has ended: it stays so until a user starts it again.
ALTER TABLE syncline.replications DROP CONSTRAINT replications_wanted_check;
ALTER TABLE syncline.replications ADD CONSTRAINT replications_wanted_check CHECK (wanted IN ('running', 'stopped', 'completed'));

ALTER TABLE syncline.replications
    -- The last run that ended: everything of the source up to this position was committed here when it did.
    ADD COLUMN completed_at timestamptz,
    ADD COLUMN completed_log_id text,
    ADD COLUMN completed_lsn pg_lsn,
    -- A run that is forgotten when it ends, or when the applier does.
    ADD COLUMN transient boolean NOT NULL DEFAULT false;

-- How transient runs ended, for a day. content is the replication as the API shows it.
CREATE TABLE syncline.runs (
    name text PRIMARY KEY,
    content jsonb NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON syncline.runs (ended_at);

---- create above / drop below ----

DROP TABLE syncline.runs;
DELETE FROM syncline.replications WHERE transient;
UPDATE syncline.replications SET wanted = 'stopped' WHERE wanted = 'completed';
ALTER TABLE syncline.replications DROP CONSTRAINT replications_wanted_check;
ALTER TABLE syncline.replications ADD CONSTRAINT replications_wanted_check CHECK (wanted IN ('running', 'stopped'));
ALTER TABLE syncline.replications DROP COLUMN completed_at, DROP COLUMN completed_log_id, DROP COLUMN completed_lsn, DROP COLUMN transient;
