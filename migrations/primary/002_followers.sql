-- What registered followers have durably applied. It decides how far the change log may be purged, never what is confirmed
-- to the slot.
CREATE TABLE syncline.followers (
    name text PRIMARY KEY,
    log_id bytea NOT NULL CHECK (octet_length(log_id) = 16),
    lsn pg_lsn NOT NULL,
    reported timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

---- create above / drop below ----

DROP TABLE syncline.followers;
