-- What was set while the logger ran, one row for each logger by the name of its slot. It stands above the flags, which give the
-- values of what was never set; and capture that was stopped stays stopped.
CREATE TABLE syncline.logger_settings (
    slot text PRIMARY KEY,
    config jsonb NOT NULL DEFAULT '{}',
    fields text[] NOT NULL DEFAULT '{}', -- those of config that were set
    updated timestamptz,                 -- when they were
    stopped timestamptz                  -- since when capture is stopped; NULL while it is not
);

---- create above / drop below ----

DROP TABLE syncline.logger_settings;
