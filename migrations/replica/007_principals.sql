-- Who may call this node's services. A node with both roles has the table once. Tokens are random, and only their SHA-256 is kept.
CREATE TABLE IF NOT EXISTS syncline.principals (
    name text PRIMARY KEY,
    role text NOT NULL CHECK (role IN ('reader', 'replicator', 'operator', 'admin')),
    -- What a replicator may read: [{"set": …, "parameters": {…}}].
    grants jsonb NOT NULL DEFAULT '[]',
    token_hash bytea UNIQUE CHECK (octet_length(token_hash) = 32),
    -- The name of a client certificate, such as 'dns:replica1.example'.
    certificate text UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    token_at timestamptz,
    CHECK ((token_hash IS NULL) <> (certificate IS NULL))
);
REVOKE ALL ON syncline.principals FROM PUBLIC;
