-- own: the target is this table's own, under whatever name, and not one that takes the rows of several partitions.
-- shared: rows of other replications are in the target too.
ALTER TABLE syncline.tables ADD COLUMN own boolean, ADD COLUMN shared boolean NOT NULL DEFAULT false;
UPDATE syncline.tables SET own = schema_name = target_schema AND table_name = target_table;
ALTER TABLE syncline.tables ALTER COLUMN own SET NOT NULL;

---- create above / drop below ----

ALTER TABLE syncline.tables DROP COLUMN own, DROP COLUMN shared;
