-- Changes that were set aside: those that the target refused, and those that wait behind one of the same key. A row is written in
-- the target transaction that moves the position past its change, and goes in the one that applies it. Ids grow in the order of
-- the source's changes.
CREATE TABLE syncline.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replication text NOT NULL,
    log_id text NOT NULL,
    -- Of the transaction's commit record, and the change's number among those of its transaction, from 1.
    commit_lsn pg_lsn NOT NULL,
    number bigint NOT NULL,
    commit_time bigint NOT NULL,
    xid bigint NOT NULL,
    -- Where the transaction first happened.
    origin_server text NOT NULL,
    origin_log text NOT NULL,
    origin_lsn pg_lsn NOT NULL,
    origin_time bigint NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    target_schema text NOT NULL,
    target_table text NOT NULL,
    -- The table's shape as of the change.
    relation jsonb NOT NULL,
    -- The columns that tell which row it is, as numbers in that shape, from 0.
    locator integer[] NOT NULL,
    operation text NOT NULL CHECK (operation IN ('I', 'U', 'D')),
    has_old boolean NOT NULL,
    -- What nobody else may change meanwhile: keys, hashed, of the columns that the signature names; '' is the whole table.
    signature text NOT NULL,
    held bytea[] NOT NULL,
    -- The entry that it waits behind; NULL where it was refused itself.
    waits_behind bigint,
    sqlstate text NOT NULL DEFAULT '',
    constraint_name text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (replication, log_id, commit_lsn, number)
);
CREATE INDEX ON syncline.quarantine (replication, id);

-- Their values, as they came. A value is bytes, so that one that the target's encoding does not have is kept too.
CREATE TABLE syncline.quarantine_values (
    entry bigint NOT NULL,
    old boolean NOT NULL,
    ordinal integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('t', 'n', 'u')),
    value bytea,
    PRIMARY KEY (entry, old, ordinal)
);

---- create above / drop below ----

DROP TABLE syncline.quarantine_values, syncline.quarantine;
