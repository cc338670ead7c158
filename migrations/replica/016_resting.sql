-- Whether its applier has the replication listen to its source without a session here, so that no other one takes it over.
ALTER TABLE syncline.replications ADD COLUMN resting boolean NOT NULL DEFAULT false;

---- create above / drop below ----

ALTER TABLE syncline.replications DROP COLUMN resting;
