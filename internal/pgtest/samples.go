package pgtest

import "strings"

// sampled is one type and texts of values of it, which include its limits and whatever is hard to carry.
type sampled struct {
	typ    string
	values []string
	key    bool // the type can be a primary key
}

// baseTypes are all types of PostgreSQL that a column of a user's table usually has. reg* types are left out: they print
// names of things that another database may not have.
var baseTypes = []sampled{
	{"smallint", []string{"0", "1", "-32768", "32767"}, true},
	{"integer", []string{"0", "1", "-2147483648", "2147483647"}, true},
	{"bigint", []string{"0", "1", "-9223372036854775808", "9223372036854775807"}, true},
	{"numeric", []string{"0", "0.000", "1.10", "1.1", "-12345678901234567890.123456789", "1e200", "1e-200", "NaN", "Infinity", "-Infinity"}, true},
	{"numeric(10,3)", []string{"0", "1.5", "-9999999.999", "NaN"}, true},
	{"real", []string{"0", "-0", "0.1", "1e-45", "3.4028235e38", "NaN", "Infinity", "-Infinity"}, true},
	{"double precision", []string{"0", "-0", "0.1", "0.30000000000000004", "5e-324", "1.7976931348623157e308", "NaN", "Infinity", "-Infinity"}, true},
	{"boolean", []string{"true", "false"}, true},
	{"text", hardTexts, true},
	{"character varying(10)", []string{"", "ten chars!", " a ", "ünïcödé"}, true},
	{"character(5)", []string{"", "a", "a b", "five!", "é"}, true},
	{"\"char\"", []string{"x", "~", ""}, true},
	{"name", []string{"", "a name", `quo"te`}, true},
	{"bytea", []string{`\x`, `\x00`, `\x00ff5c275c6e0a09`, `\xdeadbeef`}, true},
	{"date", []string{"2026-02-28", "2024-02-29", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31", "infinity", "-infinity"}, true},
	{"time without time zone", []string{"00:00:00", "24:00:00", "23:59:59.999999"}, true},
	{"time(0) without time zone", []string{"12:34:56"}, true},
	{"time with time zone", []string{"00:00:00+15:59", "24:00:00-15:59", "12:00:00.000001+00", "13:00:00+01"}, true},
	{"timestamp without time zone", []string{"2026-03-29 02:30:00", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity"}, true},
	{"timestamp with time zone", []string{"2026-03-29 02:30:00.000001+01", "1883-11-18 12:00:00-04:56:02", "0001-01-01 00:00:00+00 BC", "infinity", "-infinity"}, true},
	{"timestamp(3) with time zone", []string{"2026-03-29 02:30:00.123+01"}, true},
	{"interval", []string{"0", "1 mon", "30 days", "720:00:00", "1 year -2 mons +3 days -04:05:06.789", "-178000000 years", "00:00:00.000001"}, true},
	{"interval day to second(2)", []string{"1 day 00:00:01.25"}, true},
	{"uuid", []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, true},
	{"json", []string{`null`, `{"a":  1, "a": 2}`, `"\u0000 \\ \n"`, "[1,\n\t2]", `1e400`}, false},
	{"jsonb", []string{`null`, `{}`, `{"b": [1.10, null, "\\ \n \" ü"], "a": {"": true}}`, `1e300`, `"x"`}, true},
	{"jsonpath", []string{`$."a b"[*]?(@ > 1)`, `strict $`}, false},
	{"xml", []string{`<a/>`, "text &amp; <b c=\"d\">x\n</b>", `<?xml version="1.0"?><r>ü</r>`, ``}, false},
	{"inet", []string{"10.0.0.1", "10.0.0.1/8", "::1/128", "2001:db8::1/64", "0.0.0.0/0"}, true},
	{"cidr", []string{"10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"}, true},
	{"macaddr", []string{"08:00:2b:01:02:03", "00:00:00:00:00:00"}, true},
	{"macaddr8", []string{"08:00:2b:01:02:03:04:05"}, true},
	{"bit(5)", []string{"00000", "10101"}, true},
	{"bit varying(12)", []string{"", "1", "101010101010"}, true},
	{"money", []string{"0", "12.34", "-92233720368547758.08", "92233720368547758.07"}, true},
	{"point", []string{"(1,2)", "(-0,0.1)", "(NaN,Infinity)"}, false},
	{"line", []string{"{1,-1,0}"}, false},
	{"lseg", []string{"[(0,0),(1,1)]"}, false},
	{"box", []string{"(1,1),(0,0)", "(0,0),(0,0)"}, false},
	{"path", []string{"[(0,0),(1,1),(2,0)]", "((0,0),(1,1))"}, false},
	{"polygon", []string{"((0,0),(1,1),(1,0))"}, false},
	{"circle", []string{"<(1,2),3.5>"}, false},
	{"tsvector", []string{"", `'a':1A 'b c':2B,3 'it''s':4`, `'back\\slash'`}, true},
	{"tsquery", []string{"", `'a' & !'b' | 'c' <-> 'd':*A`}, true},
	{"oid", []string{"0", "4294967295"}, true},
	{"xid8", []string{"0", "18446744073709551615"}, true},
	{"tid", []string{"(0,1)", "(4294967295,65535)"}, true},
	{"pg_lsn", []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"}, true},
	{"pg_snapshot", []string{"10:20:10,14,15"}, false},
	{"int4range", []string{"empty", "[1,5)", "(,)", "[,3)"}, true},
	{"int8range", []string{"empty", "[1,9223372036854775807)"}, true},
	{"numrange", []string{"empty", "[1.0,1.00]", "(0.1,Infinity]"}, true},
	{"tsrange", []string{`["2026-01-01 00:00:00","2026-02-01 00:00:00")`, `[,infinity]`}, true},
	{"tstzrange", []string{`["2026-01-01 00:00:00+01",)`, "empty"}, true},
	{"daterange", []string{"[2026-01-01,2026-02-01)", "(,infinity)"}, true},
	{"int4multirange", []string{"{}", "{[1,3),[5,9)}", "{(,)}"}, true},
	{"int8multirange", []string{"{}", "{[1,3),[5,9)}"}, true},
	{"nummultirange", []string{"{}", "{[1.5,1.50],(2,Infinity)}"}, true},
	{"tsmultirange", []string{"{}", `{["2026-01-01 00:00:00","2026-02-01 00:00:00")}`}, true},
	{"tstzmultirange", []string{"{}", `{["2026-01-01 00:00:00+00",)}`}, true},
	{"datemultirange", []string{"{}", "{[2026-01-01,2026-01-02),[2026-03-01,)}"}, true},
}

var arrayTypes = []sampled{
	{"integer[]", []string{"{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[-1:1]={7,8,9}", "{{{1}},{{NULL}}}", "[2:2][3:4]={{1,2}}"}, true},
	{"bigint[]", []string{"{9223372036854775807,NULL}"}, true},
	{"numeric[]", []string{"{NaN,1.10,-Infinity,NULL}"}, true},
	{"double precision[]", []string{"{-0,NaN,0.1}"}, true},
	{"boolean[]", []string{"{t,f,NULL}"}, true},
	{"text[]", []string{"{}", `{"",NULL,"NULL","null","a,b","{}","\"","\\","  sp  ","new` + "\n" + `line"}`, `{{a,"b c"},{NULL,"\\N"}}`}, true},
	{"character varying(5)[]", []string{`{abc,"d e"}`}, true},
	{"character(3)[]", []string{`{a,"b c",""}`}, true},
	{"bytea[]", []string{`{"\\x00ff","\\x",NULL}`}, true},
	{"uuid[]", []string{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"}, true},
	{"date[]", []string{`{infinity,"0044-03-15 BC"}`}, true},
	{"timestamp with time zone[]", []string{`{"2026-03-29 02:30:00+01",-infinity,NULL}`}, true},
	{"interval[]", []string{`{"1 mon","-00:00:01"}`}, true},
	{"json[]", []string{`{"{\"a\":  [1, \"x\\\\y\"]}",NULL}`}, false},
	{"jsonb[]", []string{`{"{\"a\": [1, \"x\\\\y\"]}","null",NULL}`}, true},
	{"inet[]", []string{"{10.0.0.1/8,::1}"}, true},
	{"box[]", []string{"{(1,1),(0,0);(2,2),(1,1)}"}, false}, // the only type with another delimiter
	{"point[]", []string{`{"(1,2)","(-0,3)"}`}, false},
	{"bit varying[]", []string{`{101,"",NULL}`}, true},
	{"tsvector[]", []string{`{"'a':1 'it''s'"}`}, true},
	{"int4range[]", []string{`{"[1,5)",empty,NULL}`}, true},
	{"int4multirange[]", []string{`{"{[1,3),[5,9)}","{}"}`}, true},
}

// userTypes are the types of allkinds.sql, as format_type prints them.
var userTypes = []sampled{
	{"kinds.mood", []string{"sad", "o'k", "With, Space", `glücklich "sehr"`}, true},
	{"kinds.mood[]", []string{`{sad,"o'k","With, Space","glücklich \"sehr\"",NULL}`, "{}"}, true},
	{"kinds.positive", []string{"1", "2147483647"}, true},
	{"kinds.small_positive", []string{"1", "999"}, true},
	{"kinds.positive[]", []string{"{1,NULL,2}", "{{3}}"}, true},
	{"kinds.mail", []string{"a@b", `"odd \ one"@example.org`}, true},
	{"kinds.few", []string{"{}", "{1,2,3,4}", "{{1,2}}"}, true},
	{"kinds.address", []string{
		`("1, ""Odd"" Street",5,"{a,""b c""}","(1,2)")`, `(,,,)`, `("","-1",{},"(-0,0.1)")`, `("back\\slash (x)",,"{NULL,""NULL""}",)`,
	}, false},
	{"kinds.person", []string{`(Ann,"(Road,1,{x},""(1,2)"")",sad,2000-02-29)`, `(,,,)`, `("B, ""b""","(,,,)","With, Space",infinity)`}, false},
	{"kinds.address[]", []string{`{"(Road,1,{x},\"(1,2)\")",NULL}`, "{}"}, false},
	{"kinds.known_address", []string{`(Road,1,{x},"(1,2)")`}, false},
	{"kinds.span", []string{"empty", "[0.1,2.5)", "(,)", "[-Infinity,NaN]"}, true},
	{"kinds.spans", []string{"{}", "{[0.1,2.5),[3,)}"}, true},
	{"kinds.span[]", []string{`{"[0.1,2.5)",empty,NULL}`}, true},
}

// hardTexts are what copying text gets wrong.
var hardTexts = []string{
	"", " ", "a", "NULL", `\N`, `\.`, `\`, `\\n`, "tab\there", "line\nbreak", "return\r\n", "quote'", `double"quote`, ",", "{}", "()",
	"ünïcödé", "🙂👩‍👩‍👧", "\ufeffbom", "\x01\x1f\x7f", "\u2028", "שלום", strings.Repeat("long enough to be compressed, ", 150),
}

// samplesOf finds the values of a type by the name that format_type prints.
var samplesOf = func() map[string][]string {
	all := map[string][]string{}
	for _, list := range [][]sampled{baseTypes, arrayTypes, userTypes} {
		for _, s := range list {
			all[s.typ] = s.values
		}
	}
	return all
}()
