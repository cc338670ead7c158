-- Jobs that make tables equal to the source's: those that run, and for a day those that ended. content is the job as the API shows it,
-- as of its begin or its end.
CREATE TABLE syncline.syncs (
    sync_id text PRIMARY KEY,
    replication text NOT NULL,
    running boolean NOT NULL,
    content jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);

-- One at a time for each replication.
CREATE UNIQUE INDEX syncs_running ON syncline.syncs (replication) WHERE running;

-- Whether a table's copy mends what the target holds, instead of replacing it.
ALTER TABLE syncline.tables ADD COLUMN incremental boolean NOT NULL DEFAULT false;

---- create above / drop below ----

ALTER TABLE syncline.tables DROP COLUMN incremental;
DROP TABLE syncline.syncs;
