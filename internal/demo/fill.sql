-- name: shop.products
INSERT INTO shop.products
SELECT 'P-' || lpad(i::text, 6, '0'),
    (ARRAY['Oak', 'Steel', 'Glass', 'Paper', 'Wool', 'Copper'])[1 + i % 6] || ' '
        || (ARRAY['table', 'lamp', 'notebook', 'kettle', 'scarf', 'shelf', 'clock'])[1 + i % 7] || ' no. ' || i,
    round((1 + random() * 400)::numeric, 2), 0.19, random() * 20, (100 + random() * 5000)::int,
    ARRAY[i % 90, 10 + i % 50, 5 + i % 30],
    jsonb_build_object('colour', (ARRAY['red', 'green', 'blue', 'grün'])[1 + i % 4], 'rating', round(random()::numeric * 5, 1),
        'parts', jsonb_build_array(i % 13, i % 17)),
    CASE WHEN i % 3 > 0 THEN make_interval(months => 12 * (i % 3)) END, (i % 400)::smallint
FROM generate_series(1, :products) i;

-- name: shop.customers
INSERT INTO shop.customers (reference, name, email, phone, born, preferences, tags, credit, vip, created_at, updated_at)
SELECT md5('customer' || i)::uuid,
    (ARRAY['Ada', 'Björn', 'Chloé', 'Dmitri', 'Elif', 'Farid', 'Grace', 'Hana', 'Ivo', 'Jörg'])[1 + i % 10] || ' '
        || (ARRAY['Lovelace', 'Ångström', 'Müller', 'Okafor', 'Sato', 'O''Brien', 'García'])[1 + i % 7] || ' ' || i,
    'customer' || i || '@example.com', CASE WHEN i % 5 > 0 THEN '+49 ' || 1000000 + i END,
    date '1940-01-01' + (random() * 25000)::int,
    jsonb_build_object('language', (ARRAY['de', 'en', 'fr', 'ja'])[1 + i % 4], 'newsletter', i % 3 = 0, 'seen', i % 1000),
    (ARRAY['private', 'business', 'school', 'club', 'press'])[1 + i % 5:1 + (i + i / 7) % 5],
    CASE WHEN i % 10 = 0 THEN ROW(round((random() * 1000)::numeric, 2), 'EUR')::shop.amount END, i % 50 = 0,
    :today - make_interval(mins => (random() * 700000)::int), :today - make_interval(mins => (random() * 100000)::int)
FROM generate_series(1, :customers) i;

-- name: shop.addresses
INSERT INTO shop.addresses (customer_id, kind, street, city, postcode, country, location, valid)
SELECT 1 + i % :customers, CASE i / :customers WHEN 0 THEN 'home' ELSE 'delivery' END,
    (ARRAY['Lindenstraße', 'High Street', 'Rue de la Paix', '中央通り'])[1 + i % 4] || ' ' || i % 200,
    (ARRAY['Bonn', 'Leeds', 'Lyon', '札幌', 'Graz'])[1 + i % 5], lpad((i % 99999)::text, 5, '0'),
    (ARRAY['DE', 'GB', 'FR', 'JP', 'AT'])[1 + i % 5], point(random() * 90, random() * 180),
    daterange((:today - make_interval(days => i % 3000))::date, CASE WHEN i % 9 = 0 THEN :today::date END)
FROM generate_series(1, :addresses) i;

-- name: shop.orders
INSERT INTO shop.orders (id, ordered_on, customer_id, status, total, placed_at, placed_from, delivery, note)
SELECT i, placed::date, 1 + (i * 7919) % :customers,
    (ARRAY['paid', 'packed', 'shipped', 'delivered', 'delivered', 'returned'])[1 + i % 6]::shop.order_status,
    ROW(round((random() * 900)::numeric, 2), 'EUR')::shop.amount, placed,
    ('10.' || i % 250 || '.' || i / 250 % 250 || '.7')::inet, tstzrange(placed, placed + interval '3 days'),
    CASE WHEN i % 4 = 0 THEN 'please ring twice, ' || md5(i::text) END
FROM generate_series(1, :orders) i,
    LATERAL (SELECT :today - make_interval(secs => (:orders - i) * (330 * 86400.0 / :orders))) p (placed);
SELECT setval('shop.order_numbers', :orders);

-- name: shop.order_items
INSERT INTO shop.order_items (order_id, ordered_on, line, product_code, quantity, unit_price)
SELECT o.id, o.ordered_on, l, 'P-' || lpad((1 + (o.id * 31 + l * 17) % :products)::text, 6, '0'),
    1 + (o.id + l) % 9, 1 + (o.id * l) % 40000 / 100.0
FROM shop.orders o, generate_series(1, 1 + o.id % 4) l;

-- name: shop.invoices
INSERT INTO shop.invoices
SELECT 'R-' || extract(year FROM o.ordered_on) || '-' || lpad(o.id::text, 8, '0'), o.id, o.ordered_on,
    o.placed_at AT TIME ZONE 'UTC' + interval '1 hour', '18:00+01',
    jsonb_build_object('to', jsonb_build_object('customer', o.customer_id, 'vat id', 'DE' || o.id),
        'sum', (o.total).value, 'lines', (SELECT jsonb_agg(jsonb_build_object('no', n, 'code', md5(n || ' ' || o.id)))
            FROM generate_series(1, 1 + o.id % 4) n)), o.id % 11 > 0
FROM shop.orders o WHERE o.id % 3 > 0;

-- name: office.documents
INSERT INTO office.documents (id, title, body, attachment, meta, written_at)
SELECT md5('document' || i)::uuid, 'Minutes of meeting ' || i || ' on ' || (ARRAY['prices', 'hiring', 'stock', 'the garden'])[1 + i % 4],
    (SELECT string_agg(md5(i || ' ' || n), ' ') FROM generate_series(1, 50 + (i * 37) % 900) n),
    CASE WHEN i % 2 = 0 THEN (SELECT string_agg(decode(md5(n || '/' || i), 'hex'), '') FROM generate_series(1, 100 + (i * 53) % 1200) n) END,
    json_build_object('pages', i % 60, 'draft', i % 4 = 0), :today - make_interval(hours => i % 9000)
FROM generate_series(1, :documents) i;

-- name: office.events
INSERT INTO office.events (at, severity, host, network, card, session, codes, labels, busy, flags, took, charged, contact, message)
SELECT :today - make_interval(secs => :events - i), (ARRAY['debug', 'info', 'info', 'warning', 'error'])[1 + i % 5]::office.severity,
    ('192.168.' || i % 200 || '.' || i / 200 % 250)::inet, ('10.' || i % 250 || '.0.0/16')::cidr, ('08:00:2b:01:02:' || lpad(to_hex(i % 256), 2, '0'))::macaddr,
    CASE WHEN i % 2 = 0 THEN md5(i::text)::uuid END, ARRAY[i % 7, NULL, i % 11], ARRAY['web', 'Zone ' || i % 9],
    int4range(i % 100, i % 100 + 5), (i % 65536)::bit(16), make_interval(secs => random() * 9),
    CASE WHEN i % 6 = 0 THEN ROW(i % 90, 'USD')::shop.amount END, CASE WHEN i % 8 = 0 THEN 'ops' || i % 20 || '@example.com' END,
    'request ' || md5(i::text) || ' took its time'
FROM generate_series(1, :events) i;

-- name: office.stock_moves
INSERT INTO office.stock_moves
SELECT 'P-' || lpad((1 + i % :products)::text, 6, '0'), :today - make_interval(mins => i), (random() * 40)::int - 20,
    (ARRAY['sold', 'returned', NULL, 'counted'])[1 + i % 4]
FROM generate_series(1, :stock_moves) i;

-- name: office."Opening hours"
INSERT INTO office."Opening hours" SELECT d, '08:00', '18:30', CASE WHEN d > 5 THEN interval '2 hours' END FROM generate_series(1, 7) d;
