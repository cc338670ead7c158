package filter

import (
	"errors"
	"fmt"
	"testing"
)

// row has NULL wherever nothing else is said.
func row(column, text string) []Value {
	values := make([]Value, len(kinds))
	for i, c := range kinds {
		values[i].Null = true
		if c.Name == column {
			values[i] = Value{Text: []byte(text)}
		}
	}
	return values
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		column    string
		condition string
		yes, no   []string
	}{
		{"b", `true`, []string{"t"}, []string{"f"}},
		{"b", `{"$lt": true}`, []string{"f"}, []string{"t"}},
		{"i4", `18`, []string{"18"}, []string{"-18", "180", "1", "8"}},
		{"i4", `{"$gte": 18, "$lt": 65}`, []string{"18", "64"}, []string{"17", "65", "-20", "0", "180"}},
		{"i4", `{"$gt": 18.5}`, []string{"19"}, []string{"18", "-19"}},
		{"i4", `{"$ne": 18.5}`, []string{"18", "0"}, nil},
		{"i4", `{"$in": [1.0, 2e0, 30.0e-1]}`, []string{"1", "2", "3"}, []string{"0", "4", "-1"}},
		{"i4", `{"$nin": [1, 2]}`, []string{"0", "3"}, []string{"1", "2"}},
		{"i8", `{"$gt": 9223372036854775806}`, []string{"9223372036854775807"}, []string{"9223372036854775806", "-9223372036854775808"}},
		{"i8", `{"$lt": 1e300}`, []string{"9223372036854775807"}, nil},
		{"i8", `{"$eq": -0.0}`, []string{"0"}, []string{"1"}},
		{"o", `4294967295`, []string{"4294967295"}, []string{"0"}},
		{"n", `1.10`, []string{"1.1", "1.10", "1.100000"}, []string{"1.11", "1.01", "-1.1", "11", "NaN", "Infinity"}},
		{"n", `{"$lt": 0.001}`, []string{"0.00099999", "0", "-5", "-Infinity", "0.0000"}, []string{"0.001", "0.0010", "0.0011", "1", "NaN", "Infinity"}},
		{"n", `{"$gt": -0.02}`, []string{"-0.01", "-0.0199", "0", "NaN"}, []string{"-0.02", "-0.020", "-0.03", "-1", "-Infinity"}},
		{"n", `{"$gte": "NaN"}`, []string{"NaN"}, []string{"Infinity", "0"}},
		{"n", `{"$lt": "Infinity"}`, []string{"1", "-Infinity"}, []string{"Infinity", "NaN"}},
		{"n", `1e2`, []string{"100", "100.00"}, []string{"1", "10", "1000"}},
		{"f4", `0.1`, []string{"0.1"}, []string{"0.10000001", "-0.1", "NaN"}},
		{"f4", `{"$lt": 0.1}`, []string{"0.099999994"}, []string{"0.1", "NaN", "Infinity"}},
		{"f8", `{"$gt": 0.3}`, []string{"0.30000000000000004", "NaN", "Infinity", "1e+300"}, []string{"0.3", "0.29999999999999993", "-1e+300", "-Infinity"}},
		{"f8", `0`, []string{"-0", "0"}, []string{"5e-324"}},
		{"f8", `"NaN"`, []string{"NaN"}, []string{"0", "Infinity"}},
		{"t", `"acme"`, []string{"acme"}, []string{"acme ", "Acme", ""}},
		{"t", `{"$gt": "b"}`, []string{"ba", "c", "é"}, []string{"b", "a", "B", ""}},
		{"t", `{"$in": ["x", "a", "m"]}`, []string{"a", "m", "x"}, []string{"b", ""}},
		{"t", `{"$regex": "^a.c$"}`, []string{"abc", "aéc"}, []string{"xabc", "abcd", "a\nc"}},
		{"t", `{"$regex": "b"}`, []string{"abc"}, []string{"ac", "B"}},
		{"t", `{"$regex": "(?i)straße"}`, []string{"STRAßE", "straẞe"}, []string{"strasse"}},
		{"bp", `"a  "`, []string{"a     ", "a"}, []string{"a b   ", " a    "}},
		{"bp", `{"$regex": "a$"}`, []string{"a     "}, []string{"ab    "}},
		{"u", `"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"`, []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, []string{"00000000-0000-0000-0000-000000000000"}},
		{"d", `{"$lt": "2024-03-01"}`, []string{"2024-02-29", "0044-03-15 BC", "-infinity"}, []string{"2024-03-01", "10000-01-01", "infinity"}},
		{"d", `{"$lte": "0001-01-01 BC"}`, []string{"0001-01-01 BC", "0002-12-31 BC"}, []string{"0001-01-02 BC", "0001-01-01"}},
		{"ts", `{"$gte": "2026-01-31"}`, []string{"2026-01-31 00:00:00", "infinity"}, []string{"2026-01-30 23:59:59.999999"}},
		{"ts", `"2026-12-31 24:00"`, []string{"2027-01-01 00:00:00"}, []string{"2026-12-31 00:00:00"}},
		{"tz", `"2026-03-29T02:30:00.5+01:30"`, []string{"2026-03-29 01:00:00.5+00"}, []string{"2026-03-29 01:00:00+00", "2026-03-29 02:30:00.5+00"}},
		{"tz", `{"$lt": "0001-01-01T00:00:00+00:01"}`, []string{"0001-12-31 23:58:59.999999+00 BC"}, []string{"0001-12-31 23:59:00+00 BC"}},
		{"e", `"happy"`, []string{"happy"}, []string{"sad"}},
		{"ip", `{"$nin": ["10.0.0.1"]}`, []string{"10.0.0.2"}, []string{"10.0.0.1"}},
		{"js", `{"$regex": "\"a\": 1"}`, []string{`{"a": 1}`}, []string{`{"a":1}`}},
	} {
		selector := fmt.Sprintf(`{%q: %s}`, c.column, c.condition)
		p := compile(t, selector, nil)
		for _, texts := range []struct {
			want  bool
			texts []string
		}{{true, c.yes}, {false, c.no}} {
			for _, text := range texts.texts {
				if got, err := p.Matches(row(c.column, text)); err != nil || got != texts.want {
					t.Errorf("%s on %q: %v %v", selector, text, got, err)
				}
			}
		}
		if got, err := p.Matches(row("", "")); got || err != nil {
			t.Errorf("%s selects NULL: %v", selector, err)
		}
	}
}

// NULL makes a condition unknown, and unknown stays so under $not; but one that is true beside it is enough for $or.
func TestNull(t *testing.T) {
	for selector, want := range map[string]bool{
		`{"t": {"$exists": true}}`:                                           false,
		`{"t": {"$exists": false}}`:                                          true,
		`{"$not": {"t": {"$exists": true}}}`:                                 true,
		`{"t": {"$ne": "a"}}`:                                                false,
		`{"t": {"$nin": ["a"]}}`:                                             false,
		`{"t": {"$not": {"$eq": "a"}}}`:                                      false,
		`{"$not": {"t": "a"}}`:                                               false,
		`{"$nor": [{"t": "a"}]}`:                                             false,
		`{"$nor": [{"t": "a"}, {"i4": 2}]}`:                                  false,
		`{"$or": [{"t": "a"}, {"i4": 1}]}`:                                   true,
		`{"$not": {"$or": [{"t": "a"}, {"i4": 1}]}}`:                         false,
		`{"t": "a", "i4": 1}`:                                                false,
		`{"$not": {"t": "a", "i4": 1}}`:                                      false,
		`{"$not": {"t": "a", "i4": 2}}`:                                      true, // unknown and false is false
		`{"i4": {"$gt": 0}, "$or": [{"t": "a"}, {"t": {"$exists": false}}]}`: true,
	} {
		if got, err := compile(t, selector, nil).Matches(row("i4", "1")); got != want || err != nil {
			t.Errorf("%s: %v %v", selector, got, err)
		}
	}
}

// A value that is not what the type prints is an error, and never a row that is left out.
func TestUnreadable(t *testing.T) {
	for column, texts := range map[string][]string{
		"b": {"", "true", "x"}, "i4": {"", "-", "1.5", "1e5", "a", "+1", " 1"}, "n": {"", ".", "1.", ".1", "1.2.3", "--1", "nan", "1e5"},
		"f4": {"", "1e", "0x1p3", "1_0", "inf", "1e300"}, "f8": {"nan", "infinity", "1e400"},
		"u":  {"", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		"d":  {"", "2026-02-29", "2026-13-01", "2026-1-1", "0000-01-01", "2026-01-01 00:00:00", "2026-01-01 AD", "99999999-01-01", "5874898-01-01"},
		"ts": {"2026-01-01", "2026-01-01T00:00:00", "2026-01-01 24:00:00.1", "2026-01-01 00:60:00", "2026-01-01 00:00", "2026-01-01 00:00:00.", "2026-01-01 00:00:00+00"},
		"tz": {"2026-01-01 00:00:00", "2026-01-01 00:00:00+16", "2026-01-01 00:00:00+", "2026-01-01 00:00:00+00 bc", "294277-01-01 00:00:00+00"},
	} {
		operand := map[string]string{"b": `true`, "u": `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, "d": `"infinity"`, "ts": `"infinity"`, "tz": `"infinity"`}[column]
		if operand == "" {
			operand = "1"
		}
		p := compile(t, fmt.Sprintf(`{%q: {"$ne": %s}}`, column, operand), nil)
		for _, text := range texts {
			if got, err := p.Matches(row(column, text)); !errors.Is(err, ErrValue) || got {
				t.Errorf("%s %q: %v %v", column, text, got, err)
			}
		}
	}
	p := compile(t, `{"t": {"$regex": "a"}}`, nil)
	if _, err := p.Matches(row("t", "a\xff")); !errors.Is(err, ErrValue) {
		t.Errorf("text that is not UTF-8: %v", err)
	}
	if _, err := p.Matches(nil); !errors.Is(err, ErrValue) {
		t.Errorf("row without values: %v", err)
	}
}

func TestParameters(t *testing.T) {
	selector := parse(t, `{"t": {"$param": "org"}, "i4": {"$in": [1, {"$param": "n"}]}, "tz": {"$lt": {"$param": "until"}}}`)
	if got := fmt.Sprint(selector.Parameters(), selector.Columns()); got != "[n org until] [i4 t tz]" {
		t.Error(got)
	}
	p, err := selector.Compile(kinds, map[string]string{"org": `a"'\c`, "n": "2.0", "until": "2026-01-01T00:00:00Z", "other": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Columns()); got != "[2 8 15]" {
		t.Error(got)
	}
	values := row("t", `a"'\c`)
	values[2], values[15] = Value{Text: []byte("2")}, Value{Text: []byte("2025-12-31 23:59:59.999999+00")}
	if got, err := p.Matches(values); !got || err != nil {
		t.Errorf("%v %v", got, err)
	}
}

var benchmarks = map[string]string{
	"text":      `{"t": "acme"}`,
	"integer":   `{"i8": {"$gte": 18, "$lt": 65}}`,
	"numeric":   `{"n": {"$gte": 18.25}}`,
	"float":     `{"f8": {"$gte": 18.25}}`,
	"timestamp": `{"tz": {"$gte": "2026-01-01T00:00:00Z"}}`,
	"in":        `{"t": {"$in": ["a", "acme", "b", "c", "d", "e", "f", "g"]}}`,
	"regex":     `{"t": {"$regex": "^ac"}}`,
	"mixed":     `{"i8": {"$gte": 18}, "$or": [{"b": false}, {"t": {"$ne": "x"}}], "n": {"$lt": 100}, "u": {"$exists": true}}`,
}

// benchmarked is a row that all of benchmarks select.
func benchmarked() []Value {
	values := row("", "")
	for column, text := range map[string]string{
		"b": "t", "i8": "42", "n": "19.99", "f8": "19.99", "t": "acme",
		"tz": "2026-11-26 08:13:27.123456+00", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
	} {
		for i, c := range kinds {
			if c.Name == column {
				values[i] = Value{Text: []byte(text)}
			}
		}
	}
	return values
}

func BenchmarkMatches(b *testing.B) {
	values := benchmarked()
	for name, selector := range benchmarks {
		p := compile(b, selector, nil)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if matches, err := p.Matches(values); err != nil || !matches {
					b.Fatal(matches, err)
				}
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	values := benchmarked()
	for name, selector := range benchmarks {
		p := compile(t, selector, nil)
		if allocs := testing.AllocsPerRun(100, func() { _, _ = p.Matches(values) }); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
