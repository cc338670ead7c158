package filter

import (
	"encoding/json"
	"slices"
)

// nastyColumn is a column of the table that is compared with PostgreSQL, with values for its rows and constants for selectors.
type nastyColumn struct {
	name, typ string
	unordered bool // compared by its text, and not for order
	texts     bool // has $regex
	values    []string
	operands  []string
}

const nastyTypes = `
	CREATE TYPE mood AS ENUM ('sad', 'happy', 'it''s \ "so so"', '');
	CREATE DOMAIN flag AS boolean;
	CREATE DOMAIN padded AS character(5);
	CREATE TYPE pair AS (a int, b text);
	CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);`

var nasty = []nastyColumn{
	{name: "b", typ: "boolean", values: []string{"true", "false"}, operands: []string{`true`, `false`}},
	{
		name: "i2", typ: "smallint", values: []string{"0", "1", "-1", "18", "19", "-32768", "32767"},
		operands: []string{`0`, `-0.0`, `1`, `18.5`, `18.0`, `1e0`, `-32768`, `-32768.5`, `40000`, `1e300`, `-1e-400`, `10e-1`},
	},
	{
		name: "i 4", typ: "integer", values: []string{"0", "1", "-1", "10", "100", "-2147483648", "2147483647"},
		operands: []string{`0`, `1`, `1e1`, `1E+2`, `99.99999999999999999999`, `2147483647`, `2147483648`, `-2147483648`, `9223372036854775808`, `0.5`},
	},
	{
		name: `i"8`, typ: "bigint", values: []string{"0", "1", "9007199254740992", "9007199254740993", "-9223372036854775808", "9223372036854775807", "9223372036854775806"},
		operands: []string{
			`0`, `9007199254740992`, `9007199254740993`, `9007199254740992.5`, `9223372036854775807`, `-9223372036854775808`, `9223372036854775807.1`,
			`-9223372036854775809`, `9223372036854775808`, `9.223372036854775807e18`, `1e131071`, `-1e131071`,
		},
	},
	{
		name: "o", typ: "oid", values: []string{"0", "1", "2147483648", "4294967295"},
		operands: []string{`0`, `-1`, `4294967295`, `2147483648`, `4294967296`, `0.5`, `4294967294.9`, `1e20`},
	},
	{
		name: "n", typ: "numeric",
		values: []string{
			"0", "0.000", "1", "1.0", "1.10", "1.1", "1.01", "-1", "-1.1", "10", "100", "99.99", "-0.02", "0.02", "0.002", "-12345678901234567890.123456789", "1e200", "1e-200", "1e-400", "-1e-400",
			"1e131071", "1e-16383", "NaN", "Infinity", "-Infinity", "18.5", "18", "19", "0.1", "0.10000000000000000000001", "9999.9999", "10000", "10000.0001", "10001000", "-1e131071",
		},
		operands: []string{
			`0`, `-0`, `0e99`, `1`, `1.1`, `1.10`, `11e-1`, `1.01`, `-1`, `-1.1`, `1e1`, `100.0`, `99.99`, `-0.02`, `0.002`, `-12345678901234567890.123456789`, `1e200`, `1e-200`, `1e-400`, `-1e-400`,
			`1e131071`, `1e-16383`, `"NaN"`, `"Infinity"`, `"-Infinity"`, `18.5`, `0.1`, `0.10000000000000000000001`, `0.1000000000000000055511151231257827`, `9999.9999`, `10000`, `10000.0001`, `-1e131071`, `99999999999999999999999e-5`,
		},
	},
	{
		name: "n102", typ: "numeric(10,2)", values: []string{"0", "1.5", "1.50", "-99999999.99", "99999999.99", "NaN", "18.25"},
		operands: []string{`0`, `1.5`, `1.505`, `-99999999.99`, `1e8`, `"NaN"`, `"Infinity"`, `18.25`, `18.250000001`},
	},
	{
		name: "f4", typ: "real",
		values: []string{
			"0", "-0", "1", "-1", "0.1", "0.3", "16777216", "16777217", "1e-45", "1.1754942e-38", "3.4028235e38", "-3.4028235e38", "NaN", "Infinity", "-Infinity", "1e15", "123456.789", "9.8e-7", "0.099999994",
		},
		operands: []string{
			`0`, `-0.0`, `1`, `0.1`, `0.10000000149011612`, `0.100000000000001`, `0.3`, `16777216`, `16777217`, `16777218`, `1e-45`, `1.4e-45`, `7.1e-46`, `3.4028235e38`, `3.4028234e38`, `"NaN"`, `"Infinity"`,
			`"-Infinity"`, `1e15`, `123456.789`, `0.00000098`, `1.1754942e-38`, `16777216.999999999999999999`,
		},
	},
	{
		name: "f8", typ: "double precision",
		values: []string{
			"0", "-0", "1", "-1", "0.1", "0.3", "0.30000000000000004", "9007199254740992", "9007199254740994", "5e-324", "2.2250738585072011e-308", "1.7976931348623157e308", "-1.7976931348623157e308", "NaN", "Infinity",
			"-Infinity", "1e22", "1e23", "9.5367431640625e-07", "123456789.123456789", "2e-308", "8.41e21", "9.5e-310", "4.35", "5e-320",
		},
		operands: []string{
			`0`, `-0.0`, `1`, `0.1`, `0.1000000000000000055511151231257827`, `0.3`, `0.30000000000000004`, `9007199254740993`, `9007199254740992`, `9007199254740993.00000000000000000001`, `5e-324`, `3e-324`, `2.2250738585072011e-308`,
			`1.7976931348623157e308`, `1.7976931348623158e308`, `"NaN"`, `"Infinity"`, `"-Infinity"`, `1e22`, `1e23`, `99999999999999991611392`, `0.00000095367431640625`, `123456789.123456789`, `8.41e21`, `4.35`, `5e-320`,
		},
	},
	{name: "t", typ: "text", texts: true, values: texts, operands: quoted(texts)},
	{name: "tc", typ: "text COLLATE public.folded", texts: true, values: texts, operands: quoted(texts)},
	{name: "vc", typ: "character varying(12)", texts: true, values: shorter(texts, 12), operands: quoted(texts)},
	{name: "bp", typ: "character(8)", texts: true, values: shorter(texts, 8), operands: quoted(append(shorter(texts, 8), "a       ", "a\n", "a\t", "  "))},
	{name: "nm", typ: "name", texts: true, values: shorter(texts, 60), operands: quoted(texts)},
	{
		name: "u", typ: "uuid",
		values:   []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{A0EEBC999C0B4EF8BB6D6BB9BD380A12}", "90eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		operands: quoted([]string{"00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", "9fffffff-0000-0000-0000-000000000000"}),
	},
	{
		name: "d", typ: "date", values: dates,
		operands: quoted(append([]string{"0001-12-31 BC", "5874897-12-30", "2023-03-01", "2000-02-29", "9999-12-31"}, dates...)),
	},
	{
		name: "ts", typ: "timestamp without time zone",
		values: []string{
			"2026-03-29 02:30:00", "2026-03-29 02:30:00.000001", "4713-01-01 00:00:00 BC", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity", "2026-12-31 24:00:00", "1999-12-31 23:59:59.999999",
			"2000-01-01", "0001-01-01", "0001-12-31 23:59:59.5 BC", "10000-01-01 00:00:00", "9999-12-31 23:59:59", "2024-02-29 12:00:00.5", "0044-03-15 12:34:56.789 BC", "2016-12-31 23:59:60",
		},
		operands: quoted([]string{
			"2026-03-29 02:30", "2026-03-29T02:30:00.000001", "4713-01-01 BC", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity", "2027-01-01", "2026-12-31 24:00:00",
			"1999-12-31T23:59:59.999999", "2000-01-01", "0001-01-01 00:00", "0001-12-31 23:59:59.5 BC", "10000-01-01", "9999-12-31T24:00", "2024-02-29 12:00:00.500", "0044-03-15 12:34:56.789 BC", "2017-01-01T00:00:00", "0001-12-31 24:00:00 BC",
		}),
	},
	{
		name: "tz", typ: "timestamp with time zone",
		values: []string{
			"2026-03-29 02:30:00.000001+01", "2026-03-29 01:30:00.000001+00", "1883-11-18 12:00:00-04:56:02", "0001-01-01 00:00:00+00 BC", "0001-01-01 00:00:00+00", "0001-01-01 00:00:00+15:59:59", "infinity", "-infinity",
			"294276-12-31 23:59:59.999999+00", "4714-11-24 00:00:00+00 BC", "2026-12-31 24:00:00+00", "2026-12-31 24:00:00-15:59", "10000-01-01 00:00:00.5+00", "2024-02-29 23:59:59.999999+00", "1969-12-31 23:59:59.9+00",
		},
		operands: quoted([]string{
			"2026-03-29T02:30:00.000001+01", "2026-03-29 01:30:00.000001Z", "2026-03-29 01:30Z", "1883-11-18 12:00:00-04:56:02", "0001-01-01T00:00:00Z BC", "0001-01-01 00:00:00+00", "0001-01-01 00:00:00+15:59:59", "infinity", "-infinity",
			"294276-12-31 23:59:59.999999+00", "4714-11-24 00:00:00+00 BC", "2027-01-01T00:00Z", "2026-12-31T24:00:00-15:59", "9999-12-31 24:00:00.0+00", "10000-01-01 01:00:00.5+01:00", "2024-02-29 23:59:59.999999Z", "1969-12-31 12:59:59.9-11:00",
			"294276-12-31T23:59:59+00:00", "4714-11-24 15:59:59+15:59:59 BC",
		}),
	},
	{
		name: "e", typ: "public.mood", unordered: true, texts: true, values: []string{"sad", "happy", `it's \ "so so"`, ""},
		operands: quoted([]string{"sad", "happy", `it's \ "so so"`, "", "nothing"}),
	},
	{name: "df", typ: "public.flag", unordered: true, texts: true, values: []string{"true", "false"}, operands: quoted([]string{"t", "f", "true"})},
	{name: "dp", typ: "public.padded", unordered: true, texts: true, values: []string{"a", "a b", ""}, operands: quoted([]string{"a", "a    ", "a b  ", "     "})},
	{name: "pair", typ: "public.pair", unordered: true, texts: true, values: []string{"(,)", `(1,"a ""b\\")`, `(,"")`}, operands: quoted([]string{"(,)", `(1,"a ""b\\")`, `(,"")`, ""})},
	{
		name: "ip", typ: "inet", unordered: true, texts: true, values: []string{"10.0.0.1", "10.0.0.1/8", "::1", "::1/128", "2001:db8::1/64"},
		operands: quoted([]string{"10.0.0.1", "10.0.0.1/32", "10.0.0.1/8", "::1", "::1/128", "2001:db8::1/64"}),
	},
	{
		name: "js", typ: "json", unordered: true, texts: true, values: []string{`{"a":  1}`, `null`, `"\n"`, `[1, "ü"]`},
		operands: quoted([]string{`{"a":  1}`, `{"a": 1}`, `null`, `"\n"`, `[1, "ü"]`}),
	},
	{name: "xm", typ: "xml", unordered: true, texts: true, values: []string{`<?xml version="1.0" encoding="UTF-8"?><r>ü</r>`, "<a/>", "x &amp; y"}, operands: quoted([]string{"<r>ü</r>", "<a/>", "x &amp; y"})},
	{name: "ch", typ: `"char"`, unordered: true, texts: true, values: []string{"a", "", `\201`, "~"}, operands: quoted([]string{"a", "", `\201`, "~"})},
	{name: "by", typ: "bytea", unordered: true, texts: true, values: []string{`\x`, `\x00ff5c`, `\x61`}, operands: quoted([]string{`\x`, `\x00ff5c`, `\x61`, "a"})},
	{name: "iv", typ: "interval", unordered: true, texts: true, values: []string{"1 year -2 mons +3 days -04:05:06.789", "24:00:00", "1 day"}, operands: quoted([]string{"24:00:00", "1 day", "10 mons 3 days -04:05:06.789"})},
	{name: "tt", typ: "time with time zone", unordered: true, texts: true, values: []string{"24:00:00-15:59", "13:00:00+01", "12:00:00+00"}, operands: quoted([]string{"24:00:00-15:59", "13:00:00+01", "12:00:00+00"})},
	{name: "ar", typ: "timestamptz[]", unordered: true, texts: true, values: []string{"{}", `{NULL,"2026-03-29 02:30:00+01"}`}, operands: quoted([]string{"{}", `{NULL,"2026-03-29 01:30:00+00"}`})},
	{name: "mo", typ: "money", unordered: true, texts: true, values: []string{"12.34", "-5"}, operands: quoted([]string{"$12.34", "-$5.00"})},
}

var texts = []string{
	"", " ", "  ", "a", "a ", " a", "A", "b", "ab", "a b", "a\n", "a\nb", "\n", "\t", `\`, `\\`, `a\b`, `'`, `''`, `"`, `it's`, "$1", "%s", "%", "_", "NULL", "null", "t", "1", "10", "2", "é", "e\u0301", "É", "ß", "straße",
	"K", "\u212a", "k", "😀", "\uffff", "\U0010ffff", "\ufeff", "\u0080", "\u007f", "\u0001", "日本語", "i", "İ", "ı", "a\u00a0", "a\u2003", "acme; DROP TABLE t; --", `E'\n'`, `{"$param": "p"}`, "z", "Z", "äöü",
}

var dates = []string{
	"2026-02-28", "2024-02-29", "1900-02-28", "1900-03-01", "2000-02-29", "2100-12-31", "0044-03-15 BC", "0001-01-01", "0001-01-01 BC", "0001-12-31 BC", "0005-02-28 BC", "0005-02-29 BC", "4713-01-01 BC", "4714-11-24 BC",
	"5874897-12-31", "infinity", "-infinity", "10000-01-01", "9999-12-31", "1970-01-01", "1999-12-31", "2000-01-01", "0999-01-01", "294277-01-01", "99999-06-15", "100000-06-15",
}

// quoted has the texts as JSON.
func quoted(texts []string) []string {
	var all []string
	for _, text := range texts {
		one, err := json.Marshal(text)
		if err != nil {
			panic(err)
		}
		all = append(all, string(one))
	}
	return all
}

func shorter(texts []string, most int) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return len([]rune(text)) > most })
}
