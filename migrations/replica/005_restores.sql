-- Backups that were restored into this database, or are being restored. A replication can begin with the tables of one that is done.
CREATE TABLE syncline.restores (
    restore_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    backup_id uuid NOT NULL,
    source_server_id text NOT NULL,
    -- The rows are as of this position of the source's change log.
    log_id text NOT NULL,
    lsn pg_lsn NOT NULL,
    state text NOT NULL CHECK (state IN ('restoring', 'done')),
    -- Tables that this restore creates, until their indexes and constraints are there too.
    created_tables jsonb NOT NULL DEFAULT '[]',
    started_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    -- The transaction that completed it: a row that a later one wrote did not come from the backup.
    done_xid xid8
);

-- Which table's rows came from which restore: the last one that wrote the target table.
CREATE TABLE syncline.restored_tables (
    restore_id uuid NOT NULL REFERENCES syncline.restores,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    source_oid bigint NOT NULL,
    target_schema text NOT NULL,
    target_table text NOT NULL,
    -- Another table under the same name is another table.
    target_oid oid NOT NULL,
    rows bigint NOT NULL,
    PRIMARY KEY (restore_id, schema_name, table_name)
);

-- Files whose rows are in their table, while a restore is not done. Each is written in the transaction of its rows.
CREATE TABLE syncline.restored_files (
    restore_id uuid NOT NULL REFERENCES syncline.restores,
    file text NOT NULL,
    -- The transaction that loaded it: every row has to be of one of these when the restore ends.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (restore_id, file)
);

---- create above / drop below ----

DROP TABLE syncline.restored_files, syncline.restored_tables, syncline.restores;
