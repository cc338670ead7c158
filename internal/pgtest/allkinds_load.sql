-- The first rows of the tables of allkinds.sql that need more than samples of their types.

INSERT INTO kinds.toast SELECT n, n, repeat('compress me ' || n, 2000), (SELECT string_agg(md5(n || '.' || m), '') FROM generate_series(1, 400) m),
	decode((SELECT string_agg(md5(m || '.' || n), '') FROM generate_series(1, 300) m), 'hex'),
	jsonb_build_object('n', n, 'list', (SELECT jsonb_agg(md5(m::text)) FROM generate_series(1, 200) m)), 'note ' || n
	FROM generate_series(1, 12) n;
INSERT INTO kinds.toast_full SELECT id % 5, counter, big_external, big_compressed FROM kinds.toast;
INSERT INTO kinds.toast_full SELECT * FROM kinds.toast_full WHERE id = 2;
INSERT INTO kinds.toast_key SELECT repeat(id || '-', 500), counter, big_external FROM kinds.toast;
INSERT INTO kinds.generated (id, width, height, note) SELECT n, n, 10 - n, nullif('n' || n, 'n3') FROM generate_series(1, 10) n;
INSERT INTO kinds.identity_always (note) SELECT 'n' || n FROM generate_series(1, 10) n;
INSERT INTO kinds.identity_always (id, note) OVERRIDING SYSTEM VALUE VALUES (1, 'given');
INSERT INTO kinds.identity_default (note) SELECT 'n' || n FROM generate_series(1, 10) n;
INSERT INTO kinds.identity_plain (id, note) SELECT n, 'n' || n FROM generate_series(1, 10) n;
INSERT INTO kinds.serials (note) SELECT 'n' || n FROM generate_series(1, 10) n;
INSERT INTO kinds.defaults DEFAULT VALUES;
INSERT INTO kinds.defaults DEFAULT VALUES;
INSERT INTO kinds.ranged SELECT n, n - 5, (ARRAY['north', 'south', 'east', 'west'])[1 + n % 4], n / 7.0, 'n' || n FROM generate_series(1, 80) n;
INSERT INTO kinds.listed SELECT (ARRAY['north', 'south', 'east'])[1 + n % 3], n, 'n' || n FROM generate_series(1, 20) n;
INSERT INTO kinds.hashed SELECT n, 'n' || n FROM generate_series(1, 20) n;
INSERT INTO kinds.base SELECT n, 'base' FROM generate_series(1, 5) n;
INSERT INTO kinds.derived SELECT n, 'derived', 'extra' FROM generate_series(4, 9) n;
INSERT INTO kinds.keyless SELECT n / 3, nullif('n' || n / 3, 'n2') FROM generate_series(1, 20) n;
INSERT INTO kinds.keyless VALUES (NULL, NULL), (NULL, NULL);
INSERT INTO kinds.keyless_odd VALUES ('{"a":  1}', '<a/>', '(1,2)', '(1,1),(0,0)', 'NaN', 1.10, 'ab'), (NULL, NULL, NULL, NULL, '-0', 1.1, ''),
	('{"a":  1}', '<a/>', '(1,2)', '(1,1),(0,0)', 'NaN', 1.10, 'ab'), ('{"a": 1}', '<a></a>', '(1,2)', '(1,1),(0,0)', '0', 'NaN', NULL);
INSERT INTO kinds.keyless_generated SELECT n % 13 FROM generate_series(1, 20) n;
INSERT INTO kinds.keyed_full SELECT n, n % 3, 'n' || n FROM generate_series(1, 20) n;
INSERT INTO kinds.nothing DEFAULT VALUES;
INSERT INTO kinds.nothing DEFAULT VALUES;
INSERT INTO kinds.nothing DEFAULT VALUES;
INSERT INTO kinds.by_index SELECT n, 'code ' || n, n % 4, 'n' || n FROM generate_series(1, 20) n;
INSERT INTO kinds.by_index_only SELECT 'n' || n, n FROM generate_series(1, 20) n;
INSERT INTO kinds.composite SELECT 'n' || n, 'b' || n % 4, '2026-01-01'::date + n, n % 5 FROM generate_series(1, 20) n;
INSERT INTO kinds.only_key SELECT n % 4, 'k' || n FROM generate_series(1, 10) n;
INSERT INTO "Odd ""Schema"" ü"."select" SELECT n, 'a"' || n, 'b''', 'c\', 'да', 'e', 'f', '$2', '%d', '  ', 'k', E'l\n', 'new', 'old' FROM generate_series(1, 10) n;
INSERT INTO "Odd ""Schema"" ü"."a table whose name takes sixty-three bytes which is the longest" VALUES (1, 'x'), (2, NULL);
INSERT INTO public."UPPER" SELECT n, n + 1, n + 2 FROM generate_series(1, 10) n;
INSERT INTO kinds.parents SELECT n, n * 10, nullif(n / 2, 0), 'n' || n FROM generate_series(1, 20) n;
INSERT INTO kinds.children SELECT n, n % 20 + 1, (n % 20 + 1) * 10, 'n' || n FROM generate_series(1, 30) n;
INSERT INTO kinds.hen SELECT n, n FROM generate_series(1, 10) n;
INSERT INTO kinds.egg SELECT n, 11 - n FROM generate_series(1, 10) n;
INSERT INTO kinds.deferrable SELECT n, n FROM generate_series(1, 10) n;
INSERT INTO kinds.one_null SELECT n, nullif(n, 3) FROM generate_series(1, 10) n;
INSERT INTO kinds.exclusive SELECT n, int4range(n * 10, n * 10 + 10), 'room' FROM generate_series(1, 10) n;
INSERT INTO kinds.indexed SELECT n, 'Name ' || n, n, ARRAY['t' || n % 3, 'all'], to_tsvector('simple', 'word' || n || ' and'),
	'2026-01-01 00:00Z'::timestamptz + n * '1 hour'::interval, jsonb_build_object('n', n), box(point(n, n), point(0, 0)) FROM generate_series(1, 30) n;
INSERT INTO kinds.unlogged SELECT n, 'n' || n FROM generate_series(1, 5) n;
