-- What decides whether rows fit, a line for each column and key, on both sides, when the table was taken into the replication. A later check
-- names what has changed since.
ALTER TABLE syncline.tables
    ADD COLUMN source_shape text[],
    ADD COLUMN target_shape text[],
    ADD COLUMN shaped_at timestamptz;

---- create above / drop below ----

ALTER TABLE syncline.tables DROP COLUMN source_shape, DROP COLUMN target_shape, DROP COLUMN shaped_at;
