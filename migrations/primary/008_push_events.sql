-- What has happened to pushes; see services/pusher/events.go. It outlives them.
CREATE TABLE syncline.push_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    push text NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    code text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    side text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT '',
    log_id text,
    lsn pg_lsn,
    count integer NOT NULL DEFAULT 0
);
CREATE INDEX ON syncline.push_events (push, id);
CREATE INDEX ON syncline.push_events (at);

---- create above / drop below ----

DROP TABLE syncline.push_events;
