-- The columns that a set has the replica take of a table; NULL while that is not known.
ALTER TABLE syncline.tables ADD COLUMN columns text[];

---- create above / drop below ----

ALTER TABLE syncline.tables DROP COLUMN columns;
