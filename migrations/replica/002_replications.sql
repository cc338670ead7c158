-- A replication: what a user decided, and how far it has come.
CREATE TABLE syncline.replications (
    name text PRIMARY KEY,
    spec jsonb NOT NULL,
    wanted text NOT NULL CHECK (wanted IN ('running', 'stopped')),
    -- 'new' before the first copy, 'syncing' during it, 'catching_up' until every table has passed the position of the
    -- last copy, then 'running'.
    phase text NOT NULL CHECK (phase IN ('new', 'syncing', 'catching_up', 'running')),
    source_server_id text NOT NULL,
    -- Tables that the first copy creates, until their indexes and foreign keys are there too.
    created_tables jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    sync_started_at timestamptz,
    sync_ended_at timestamptz
);

-- Moves in the same transaction as the rows: every source transaction at or below lsn is applied, none after it.
CREATE TABLE syncline.positions (
    replication text PRIMARY KEY,
    log_id text NOT NULL,
    lsn pg_lsn NOT NULL,
    commit_time bigint,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- The tables of a replication. Changes at or below copy_lsn are in the table's copy.
CREATE TABLE syncline.tables (
    replication text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    -- 'waiting', 'copying' (some chunks are in the target), 'copied'.
    state text NOT NULL CHECK (state IN ('waiting', 'copying', 'copied')),
    log_id text,
    copy_lsn pg_lsn,
    snapshot_id text,
    estimated_rows bigint NOT NULL DEFAULT 0,
    bytes_expected bigint NOT NULL DEFAULT 0,
    pages bigint NOT NULL DEFAULT 0,
    -- The table's OID on the source: another one under the same name is another table.
    source_oid bigint NOT NULL,
    -- Where its rows go: a partition of the source may go to a table above it.
    target_schema text NOT NULL,
    target_table text NOT NULL,
    PRIMARY KEY (replication, schema_name, table_name)
);

-- The page ranges of a table that its copy has finished; each row is written in the transaction of its rows.
CREATE TABLE syncline.chunks (
    replication text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    from_page bigint NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (replication, schema_name, table_name, from_page)
);

---- create above / drop below ----

DROP TABLE syncline.chunks, syncline.tables, syncline.positions, syncline.replications;
