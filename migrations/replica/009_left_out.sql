-- Tables of the source that are selected and were not captured when the copies were planned: they are copied once they are.
ALTER TABLE syncline.replications ADD COLUMN left_out jsonb NOT NULL DEFAULT '[]';

---- create above / drop below ----

ALTER TABLE syncline.replications DROP COLUMN left_out;
