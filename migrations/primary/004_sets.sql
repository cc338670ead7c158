-- Versions of sets ascend over all of them, so that a set that is made anew under its old name is not taken for the old one.
CREATE SEQUENCE syncline.set_version;

-- Replication sets: what a name selects.
CREATE TABLE syncline.sets (
    name text PRIMARY KEY,
    version bigint NOT NULL,
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- The partitioned tables above each partition, also those from which it was detached since: changes from before that are still in
-- the change log.
CREATE TABLE syncline.partitions (
    oid oid NOT NULL,
    above_schema text NOT NULL,
    above_name text NOT NULL,
    PRIMARY KEY (oid, above_schema, above_name)
);

---- create above / drop below ----

DROP TABLE syncline.sets, syncline.partitions;
DROP SEQUENCE syncline.set_version;
