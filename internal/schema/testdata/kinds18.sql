-- What PostgreSQL 18 adds to kinds.sql.
CREATE TABLE shop.virtual (id integer PRIMARY KEY, v integer GENERATED ALWAYS AS (id * 2) VIRTUAL, s integer GENERATED ALWAYS AS (id + 1) STORED);
CREATE TABLE shop.named_not_null (id integer CONSTRAINT "Id here" NOT NULL, a integer, b integer CONSTRAINT alone NOT NULL NO INHERIT, c integer);
ALTER TABLE shop.named_not_null ADD CONSTRAINT a_later NOT NULL a NOT VALID;
ALTER TABLE shop.named_not_null ADD CONSTRAINT c_hint CHECK (c > 0) NOT ENFORCED;
ALTER TABLE shop.named_not_null ADD CONSTRAINT c_ref FOREIGN KEY (c) REFERENCES shop.customers NOT ENFORCED;
CREATE TABLE shop.temporal (room integer, during daterange, CONSTRAINT temporal_pk PRIMARY KEY (room, during WITHOUT OVERLAPS));
CREATE TABLE shop.temporal_ref (room integer, during daterange,
    FOREIGN KEY (room, PERIOD during) REFERENCES shop.temporal (room, PERIOD during));
CREATE TABLE shop.identity_partitions (id bigint GENERATED ALWAYS AS IDENTITY, k integer NOT NULL) PARTITION BY LIST (k);
CREATE TABLE shop.identity_partitions_1 PARTITION OF shop.identity_partitions FOR VALUES IN (1);
CREATE TABLE shop.excluding (k integer, r int4range, EXCLUDE USING gist (k WITH =, r WITH &&)) PARTITION BY LIST (k);
CREATE TABLE shop.excluding_1 PARTITION OF shop.excluding FOR VALUES IN (1);
CREATE TABLE shop.parent_not_null (a integer CONSTRAINT parent_says NOT NULL);
CREATE TABLE shop.child_not_null (CONSTRAINT child_says NOT NULL a) INHERITS (shop.parent_not_null);
