-- Added after the rows, as that is faster.
CREATE INDEX customers_by_mail ON shop.customers (lower(email::text));
CREATE INDEX customers_by_tag ON shop.customers USING gin (tags);
CREATE INDEX customers_vip ON shop.customers (updated_at) WHERE vip;
CREATE INDEX addresses_of_customer ON shop.addresses (customer_id) INCLUDE (city);
CREATE INDEX products_by_attribute ON shop.products USING gin (attributes jsonb_path_ops);
CREATE INDEX orders_of_customer ON shop.orders (customer_id, ordered_on DESC);
CREATE INDEX orders_open ON shop.orders (placed_at) WHERE status IN ('new', 'paid', 'packed');
CREATE INDEX invoices_of_order ON shop.invoices (order_id);
CREATE INDEX invoices_unpaid ON shop.invoices (issued_at) WHERE NOT paid;
CREATE INDEX documents_by_word ON office.documents USING gin (words);
CREATE INDEX events_by_time ON office.events USING brin (at);
CREATE INDEX events_bad ON office.events (at) WHERE severity = 'error';
ALTER TABLE shop.addresses ADD FOREIGN KEY (customer_id) REFERENCES shop.customers ON DELETE CASCADE;
ALTER TABLE shop.orders ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;
ALTER TABLE shop.order_items ADD FOREIGN KEY (order_id, ordered_on) REFERENCES shop.orders ON UPDATE CASCADE ON DELETE CASCADE;
ALTER TABLE shop.order_items ADD FOREIGN KEY (product_code) REFERENCES shop.products ON UPDATE CASCADE;
ALTER TABLE shop.invoices ADD FOREIGN KEY (order_id, ordered_on) REFERENCES shop.orders ON UPDATE CASCADE ON DELETE CASCADE;
