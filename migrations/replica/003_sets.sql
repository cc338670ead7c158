-- The version of the replication set whose selection the target holds, 0 for none yet.
ALTER TABLE syncline.replications ADD COLUMN set_version bigint NOT NULL DEFAULT 0;
-- By which the set chooses rows of the table; empty for all.
ALTER TABLE syncline.tables ADD COLUMN selector text NOT NULL DEFAULT '';

---- create above / drop below ----

ALTER TABLE syncline.replications DROP COLUMN set_version;
ALTER TABLE syncline.tables DROP COLUMN selector;
