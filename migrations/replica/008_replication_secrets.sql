-- What a replication shows its source and its proxy. It stands apart from the replication, so that nothing that reads that one holds it.
CREATE TABLE syncline.replication_secrets (
    replication text PRIMARY KEY REFERENCES syncline.replications ON DELETE CASCADE,
    secrets jsonb NOT NULL
);
REVOKE ALL ON syncline.replication_secrets FROM PUBLIC;

---- create above / drop below ----

DROP TABLE syncline.replication_secrets;
