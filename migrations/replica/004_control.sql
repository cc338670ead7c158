ALTER TABLE syncline.replications
    -- Grows whenever what the user decided changes: it is what an etag is made of.
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    -- What is to be done before anything is applied again: 'plan' looks for tables to add, 'resync' copies all tables anew.
    ADD COLUMN pending text NOT NULL DEFAULT '' CHECK (pending IN ('', 'plan', 'resync')),
    -- Copies in a row that were begun because the change log did not hold the position any more.
    ADD COLUMN auto_resyncs integer NOT NULL DEFAULT 0,
    -- Warnings that stand until all tables are copied anew.
    ADD COLUMN standing_warnings text[] NOT NULL DEFAULT '{}',
    -- What positions and chunks that are forgotten had counted.
    ADD COLUMN transactions bigint NOT NULL DEFAULT 0,
    ADD COLUMN changes bigint NOT NULL DEFAULT 0,
    ADD COLUMN copied_rows bigint NOT NULL DEFAULT 0,
    ADD COLUMN copied_bytes bigint NOT NULL DEFAULT 0;

-- What was applied up to the position, counted in the transactions that move it.
ALTER TABLE syncline.positions
    ADD COLUMN transactions bigint NOT NULL DEFAULT 0,
    ADD COLUMN changes bigint NOT NULL DEFAULT 0;

-- The run log. Those who write to it hold a lock until they commit, so that ids become visible in their order.
CREATE TABLE syncline.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replication text NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    state text NOT NULL DEFAULT '',
    code text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    side text NOT NULL DEFAULT '',
    log_id text,
    lsn pg_lsn,
    rows bigint NOT NULL DEFAULT 0,
    tables integer NOT NULL DEFAULT 0,
    count integer NOT NULL DEFAULT 0
);
CREATE INDEX ON syncline.events (replication, id);
CREATE INDEX ON syncline.events (at);

---- create above / drop below ----

DROP TABLE syncline.events;
ALTER TABLE syncline.positions DROP COLUMN transactions, DROP COLUMN changes;
ALTER TABLE syncline.replications DROP COLUMN revision, DROP COLUMN pending, DROP COLUMN auto_resyncs, DROP COLUMN standing_warnings,
    DROP COLUMN transactions, DROP COLUMN changes, DROP COLUMN copied_rows, DROP COLUMN copied_bytes;
