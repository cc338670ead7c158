-- {"t": "acme"}
("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) 'acme'::pg_catalog.text);
-- {"t": {"$param": "org"}}
("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) 'acme'::pg_catalog.text);
-- {"t": "it's \\ a \"test\"\n$1 ; --"}
("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) E'it''s \\ a "test"
$1 ; --'::pg_catalog.text);
-- {"t": {"$gte": "a", "$lt": "b"}, "vc": {"$ne": "ü"}}
(("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.>=) 'a'::pg_catalog.text) AND ("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.<) 'b'::pg_catalog.text) AND ("vc"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.<>) 'ü'::pg_catalog.text));
-- {"nm": {"$in": ["x", "a", {"$param": "org"}]}}
("nm"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) ANY (ARRAY['a'::pg_catalog.text, 'acme'::pg_catalog.text, 'x'::pg_catalog.text]));
-- {"bp": {"$nin": ["a  ", "b"]}}
(NOT ("bp"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) ANY (ARRAY['a'::pg_catalog.text, 'b'::pg_catalog.text])));
-- {"t": {"$exists": true}, "i4": {"$exists": false}}
(("i4" IS NOT DISTINCT FROM NULL) AND ("t" IS DISTINCT FROM NULL));
-- {"b": true, "$not": {"b": {"$ne": false}}}
((NOT ("b" OPERATOR(pg_catalog.<>) 'f'::pg_catalog.bool)) AND ("b" OPERATOR(pg_catalog.=) 't'::pg_catalog.bool));
-- {"i4": {"$gte": 18, "$lt": 65.0}}
(("i4" OPERATOR(pg_catalog.>=) '18'::pg_catalog.int8) AND ("i4" OPERATOR(pg_catalog.<) '65'::pg_catalog.int8));
-- {"i2": {"$gt": 18.5}}
("i2"::pg_catalog.numeric OPERATOR(pg_catalog.>) '18.5'::pg_catalog.numeric);
-- {"i8": {"$in": [1, 2.5, 9223372036854775807]}}
("i8"::pg_catalog.numeric OPERATOR(pg_catalog.=) ANY (ARRAY['1'::pg_catalog.numeric, '2.5'::pg_catalog.numeric, '9223372036854775807'::pg_catalog.numeric]));
-- {"i8": {"$in": [3, 1, 9223372036854775807]}}
("i8" OPERATOR(pg_catalog.=) ANY (ARRAY['1'::pg_catalog.int8, '3'::pg_catalog.int8, '9223372036854775807'::pg_catalog.int8]));
-- {"o": {"$lte": 4294967295}}
("o"::pg_catalog.int8 OPERATOR(pg_catalog.<=) '4294967295'::pg_catalog.int8);
-- {"i8": {"$ne": 9223372036854775808}}
("i8"::pg_catalog.numeric OPERATOR(pg_catalog.<>) '9223372036854775808'::pg_catalog.numeric);
-- {"n": {"$gt": 1e-400, "$lt": 123456789012345678901234567890.5}}
(("n" OPERATOR(pg_catalog.>) '1e-400'::pg_catalog.numeric) AND ("n" OPERATOR(pg_catalog.<) '123456789012345678901234567890.5'::pg_catalog.numeric));
-- {"n": {"$in": ["NaN", "Infinity", "-Infinity", -0.0]}}
("n" OPERATOR(pg_catalog.=) ANY (ARRAY['-Infinity'::pg_catalog.numeric, '0'::pg_catalog.numeric, 'Infinity'::pg_catalog.numeric, 'NaN'::pg_catalog.numeric]));
-- {"f4": {"$lt": 0.1}, "f8": {"$gte": "-Infinity"}}
(("f4" OPERATOR(pg_catalog.<) '0.1'::pg_catalog.float4) AND ("f8" OPERATOR(pg_catalog.>=) '-Infinity'::pg_catalog.float8));
-- {"u": {"$gt": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}}
("u" OPERATOR(pg_catalog.>) 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::pg_catalog.uuid);
-- {"d": {"$gte": "0044-03-15 BC", "$lt": "5874897-12-31"}}
(("d" OPERATOR(pg_catalog.>=) '0044-03-15 BC'::pg_catalog.date) AND ("d" OPERATOR(pg_catalog.<) '5874897-12-31'::pg_catalog.date));
-- {"ts": {"$in": ["2026-12-31T24:00", "2026-01-31", "infinity", "4714-11-24 00:00:00 BC"]}}
("ts" OPERATOR(pg_catalog.=) ANY (ARRAY['4714-11-24 00:00:00 BC'::pg_catalog.timestamp, '2026-01-31 00:00:00'::pg_catalog.timestamp, '2027-01-01 00:00:00'::pg_catalog.timestamp, 'infinity'::pg_catalog.timestamp]));
-- {"tz": {"$lte": "2026-03-29T02:30:00.5+01:30"}}
("tz" OPERATOR(pg_catalog.<=) '2026-03-29 01:00:00.5+00'::pg_catalog.timestamptz);
-- {"e": "happy", "ip": {"$nin": ["10.0.0.1"]}, "js": {"$exists": true}, "by": {"$ne": "\\x00"}}
(((CASE WHEN "by" IS DISTINCT FROM NULL THEN pg_catalog.format('%s', "by") END) COLLATE pg_catalog."C" OPERATOR(pg_catalog.<>) E'\\x00'::pg_catalog.text) AND ((CASE WHEN "e" IS DISTINCT FROM NULL THEN pg_catalog.format('%s', "e") END) COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) 'happy'::pg_catalog.text) AND (NOT ((CASE WHEN "ip" IS DISTINCT FROM NULL THEN pg_catalog.format('%s', "ip") END) COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) ANY (ARRAY['10.0.0.1'::pg_catalog.text]))) AND ("js" IS DISTINCT FROM NULL));
-- {"t": {"$regex": "^a.c$"}, "js": {"$regex": "(?s)\"a\".*?[^0-9_a-f]+\\d{2,}(?:x|yz)?"}}
(((CASE WHEN "js" IS DISTINCT FROM NULL THEN pg_catalog.format('%s', "js") END) COLLATE pg_catalog."C" OPERATOR(pg_catalog.~) E'\\u0022a\\u0022(?:.)*(?:[\\u0001-\\u002F\\u003A-\\u005E\\u0060g-\\uD7FF\\uE000-\\U0010FFFF])+(?:[0-9]){2,}(?:x|yz)?'::pg_catalog.text) AND ("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.~) E'\\Aa[^\\u000A]c\\Z'::pg_catalog.text));
-- {"t": {"$regex": "(?i)kéß|[α-ω]{1,3}|😀"}}
("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.~) E'[Kk\\u212A][\\u00C9\\u00E9][\\u00DF\\u1E9E]|(?:[\\u00B5\\u0345\\u0391-\\u03A1\\u03A3-\\u03A9\\u03B1-\\u03C9\\u03D0-\\u03D1\\u03D5-\\u03D6\\u03F0-\\u03F1\\u03F4-\\u03F5\\u1FBE\\u2126]){1,3}|\\U0001F600'::pg_catalog.text);
-- {"$or": [{"i4": {"$lt": 0}}, {"$nor": [{"t": "a"}, {"b": false}]}, {"t": {"$not": {"$eq": "b", "$ne": "c"}}}]}
((NOT (("b" OPERATOR(pg_catalog.=) 'f'::pg_catalog.bool) OR ("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) 'a'::pg_catalog.text))) OR (NOT (("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) 'b'::pg_catalog.text) AND ("t"::pg_catalog.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.<>) 'c'::pg_catalog.text))) OR ("i4" OPERATOR(pg_catalog.<) '0'::pg_catalog.int8));
