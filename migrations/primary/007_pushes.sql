-- Pushes: replications of other nodes that this one begins, for it can reach them and they cannot reach it.
CREATE TABLE syncline.pushes (
    name text PRIMARY KEY,
    spec jsonb NOT NULL,
    wanted text NOT NULL CHECK (wanted IN ('running', 'stopped')),
    -- Whether the target's replication has been there. When it is gone then, somebody there has deleted it.
    made boolean NOT NULL DEFAULT false,
    target_server_id text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What a push shows its target and its proxy, apart from it, so that nothing that reads that one holds it.
CREATE TABLE syncline.push_secrets (
    push text PRIMARY KEY REFERENCES syncline.pushes ON DELETE CASCADE,
    secrets jsonb NOT NULL
);
REVOKE ALL ON syncline.push_secrets FROM PUBLIC;

---- create above / drop below ----

DROP TABLE syncline.push_secrets;
DROP TABLE syncline.pushes;
