-- Runs once, in the primary's new database: a small shop that belongs to the role app, and the role that Syncline uses.
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE SCHEMA shop AUTHORIZATION app;
SET ROLE app;
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    joined_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    items jsonb NOT NULL,
    total numeric(10,2) NOT NULL
);
CREATE INDEX orders_of_customer ON shop.orders (customer_id);
INSERT INTO shop.customers (name) SELECT 'customer ' || i FROM generate_series(1, 1000) i;
INSERT INTO shop.orders (customer_id, items, total)
    SELECT 1 + i % 1000, jsonb_build_array('item ' || i), i % 100 FROM generate_series(1, 5000) i;
RESET ROLE;

-- What Syncline needs on a primary: to replicate, to make its schema and its publications, and, as only a table's owner
-- may publish it, the rights of the role that owns the tables, which include reading them.
CREATE ROLE syncline LOGIN REPLICATION PASSWORD 'syncline';
GRANT CREATE ON DATABASE company TO syncline;
GRANT app TO syncline;
