-- Who this node is: one row. A node with both roles has it once. system_identifier and database_oid tell that the row came
-- here with a copy of another node's database.
CREATE TABLE IF NOT EXISTS syncline.server (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    server_id uuid NOT NULL,
    system_identifier text NOT NULL,
    database_oid oid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
