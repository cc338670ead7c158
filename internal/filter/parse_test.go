package filter

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s is not what is printed (go test -update rewrites it):\n%s", name, got)
	}
}

// TestRefused keeps the messages of everything that is refused: by the selector alone, by the table, by the parameters.
func TestRefused(t *testing.T) {
	var b strings.Builder
	for _, selector := range refused {
		s, err := Parse([]byte(selector))
		if err == nil {
			checked := s.Check(kinds)
			_, err = s.Compile(kinds, map[string]string{"word": "acme", "nul": "a\x00", "bytes": "\xff", "pattern": "(", "day": "2026-02-30"})
			if checked != nil && (err == nil || checked.Error() != err.Error()) {
				t.Errorf("%s: Check says %v, Compile %v", selector, checked, err)
			}
		}
		if !errors.Is(err, ErrSelector) {
			t.Errorf("%s: %v", selector, err)
			continue
		}
		if len(selector) > 120 {
			selector = fmt.Sprintf("%s… (%d bytes)", selector[:60], len(selector))
		}
		fmt.Fprintf(&b, "%s\n    %v\n", strings.ToValidUTF8(selector, "�"), err)
	}
	golden(t, "testdata/refused.txt", b.String())
}

var refused = []string{
	// JSON
	``, `  `, `{`, `{"a": 1} x`, `{"a": 1}{"a": 1}`, `[]`, `"a"`, `null`, `{"a": 01}`, "{\"a\": \"\xff\"}", `{"a": "\ud800"}`, `{"a": "x\udc00\ud800"}`,
	`{"t": 1, "t": 2}`, `{"$or": [{"i4": {"$gt": 1, "$gt": 2}}]}`, `{"\u0074": "a", "t": "b"}`,
	`{"t": "` + strings.Repeat("x", maxBytes) + `"}`, `{"t": "` + strings.Repeat("\u2028", 20000) + `"}`,
	strings.Repeat(`{"$not": `, 32) + `{"t": "a"}` + strings.Repeat(`}`, 32),
	strings.Repeat(`{"$or": [{"i4": 1}, `, 32) + `{"t": "a"}` + strings.Repeat(`]}`, 32),
	`{"t": ` + strings.Repeat(`{"$not": `, 32) + `{"$eq": "a"}` + strings.Repeat(`}`, 33),
	strings.Repeat(`[`, 60000), `{"t": ` + strings.Repeat(`[`, 1000) + strings.Repeat(`]`, 1000) + `}`,
	// operators
	`{}`, `{"t": {}}`, `{"$and": []}`, `{"$or": {}}`, `{"$nor": [1]}`, `{"$or": [{}]}`, `{"$not": []}`, `{"$xor": []}`, `{"$eq": 1}`, `{"$param": "a"}`,
	`{"t": {"$like": "a"}}`, `{"js": {"a": 1}}`, `{"t": {"$and": []}}`, `{"t": {"$not": "a"}}`, `{"t": {"$not": {"$param": "word"}}}`,
	`{"t": {"$in": []}}`, `{"t": {"$in": "a"}}`, `{"t": {"$nin": [["a"]]}}`, `{"t": {"$in": [{"a": 1}]}}`, `{"t": {"$exists": 1}}`, `{"t": {"$exists": {"$param": "word"}}}`,
	`{"t": null}`, `{"t": {"$ne": null}}`, `{"t": {"$in": ["a", null]}}`, `{"t": ["a"]}`, `{"t": {"$eq": {"$gt": "a"}}}`,
	`{"t": {"$param": ""}}`, `{"t": {"$param": 1}}`, `{"t": {"$param": "a", "$eq": 1}}`,
	// regular expressions
	`{"t": {"$regex": 1}}`, `{"t": {"$regex": "("}}`, `{"t": {"$regex": "a(?=b)"}}`, `{"t": {"$regex": "(a)\\1"}}`, `{"t": {"$regex": "\\ba"}}`, `{"t": {"$regex": "a\\B"}}`,
	`{"t": {"$regex": "(?m)^a"}}`, `{"t": {"$regex": "(?m)a$"}}`, `{"t": {"$regex": "a{256}"}}`, `{"t": {"$regex": "a{2,1001}"}}`, `{"t": {"$regex": "(a{100}){100}"}}`,
	`{"t": {"$regex": "\\x00"}}`, `{"t": {"$regex": "[\\x00]"}}`, `{"t": {"$regex": "\\x{d800}"}}`, `{"t": {"$regex": "` + strings.Repeat(`\\pL?`, 7) + `"}}`, `{"$or": [{"t": {"$regex": "(?:\\pL1){1,3}"}}, {"vc": {"$regex": "` + strings.Repeat(`\\pL?`, 6) + `"}}]}`, `{"t": {"$regex": "[^\\x00-\\x{10FFFF}]"}}`, `{"t": {"$regex": "\\pL{255}\\PL{255}.{255}[a-z]{255}` + strings.Repeat("(?:ab){255}", 10) + `"}}`,
	// columns and types
	`{"nothing": 1}`, `{"$or": [{"t": "a"}, {"T": "b"}]}`, `{"rc": "pg_class"}`, `{"rc": {"$exists": true}}`,
	`{"b": "true"}`, `{"b": 1}`, `{"i4": "18"}`, `{"i4": true}`, `{"i4": "NaN"}`, `{"n": "1"}`, `{"n": 1e131072}`, `{"n": 1e-16384}`, `{"n": 1e99999999999999999999}`, `{"n": -1e-99999999999999999999}`,
	`{"f4": 1e39}`, `{"f4": 1e-46}`, `{"f8": 1e309}`, `{"f8": 1e-400}`, `{"f8": "inf"}`, `{"t": 1}`, `{"t": {"$in": ["a", 1]}}`, `{"t": "a\u0000"}`, `{"bp": false}`,
	`{"u": "a0eebc999c0b4ef8bb6d6bb9bd380a11"}`, `{"u": "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"}`, `{"u": {"$regex": "^a"}}`, `{"i4": {"$regex": "1"}}`,
	`{"d": "2026-02-29"}`, `{"d": "yesterday"}`, `{"d": "2026-01-31 12:00:00"}`, `{"d": "0000-01-01"}`, `{"d": "4714-11-23 BC"}`, `{"d": "5874898-01-01"}`, `{"d": 2026}`,
	`{"ts": "2026-01-31T12:00:00Z"}`, `{"ts": "2026-01-31 24:00:01"}`, `{"ts": "2026-01-31 23:59:60"}`, `{"ts": "2026-01-31 12:00:00.1234567"}`, `{"ts": "294277-01-01"}`, `{"ts": "2026-01-31T"}`,
	`{"tz": "2026-01-31 12:00:00"}`, `{"tz": "2026-01-31"}`, `{"tz": "2026-01-31 12:00:00+16"}`, `{"tz": "2026-01-31 12:00:00 CET"}`, `{"tz": "294276-12-31 23:59:59-00:01"}`,
	`{"e": {"$gt": "happy"}}`, `{"ip": {"$lte": "10.0.0.0"}}`, `{"js": {"$eq": 1}}`,
	// parameters
	`{"a\nb": {"$gt": null}}`, `{"` + strings.Repeat("long", 100) + `": {"$gt": null}}`,
	`{"t": {"$param": "missing"}}`, `{"i4": {"$param": "word"}}`, `{"b": {"$in": [true, {"$param": "word"}]}}`, `{"t": {"$param": "nul"}}`, `{"t": {"$param": "bytes"}}`,
	`{"t": {"$regex": {"$param": "pattern"}}}`, `{"t": {"$regex": {"$param": "missing"}}}`, `{"d": {"$gt": {"$param": "day"}}}`, `{"u": {"$param": "word"}}`,
}

// Equal selectors have one text, whichever way they are written.
func TestCanonical(t *testing.T) {
	for want, all := range map[string][]string{
		`{"a":1}`:                                    {`{"a": 1.0}`, `{"a": {"$eq": 10e-1}}`, `{"$and": [{"a": 1}]}`, `{"$or": [{"a": 1}, {"a": {"$eq": 1}}]}`, `{"$not": {"$not": {"a": 1}}}`, `{"\u0061": 1e0}`},
		`{"a":1,"b":"x<&"}`:                          {`{"b": "x\u003c&", "a": 1}`, `{"$and": [{"a": 1}, {"b": "x<&"}]}`, `{"b": "x<&", "$and": [{"a": 1}]}`},
		`{"a":{"$gt":1}}`:                            {`{"a": {"$gt": 1}}`, `{"$and": [{"a": {"$gt": 1}}, {"a": {"$gt": 1.00}}]}`},
		`{"a":{"$in":[1,2]}}`:                        {`{"a": {"$in": [2, 1, 2.0]}}`},
		`{"$not":{"a":"x"}}`:                         {`{"a": {"$not": {"$eq": "x"}}}`, `{"$nor": [{"a": "x"}]}`, `{"$not": {"a": {"$eq": "x"}}}`},
		`{"$or":[{"a":1},{"b":2},{"c":3}]}`:          {`{"$or": [{"c": 3}, {"$or": [{"b": 2}, {"a": 1}]}]}`},
		`{"$not":{"$or":[{"a":1},{"b":2}]}}`:         {`{"$nor": [{"b": 2}, {"a": 1}]}`},
		`{"$and":[{"a":{"$ne":2}}],"a":{"$ne":1}}`:   {`{"$and": [{"a": {"$ne": 2}}, {"a": {"$ne": 1}}]}`},
		`{"$and":[{"$not":{"b":2}}],"$not":{"a":1}}`: {`{"a": {"$not": {"$eq": 1}}, "b": {"$not": {"$eq": 2}}}`},
		`{"a":{"$param":"p"}}`:                       {`{"a": {"$eq": {"$param": "p"}}}`},
		`{"a":{"$gte":1e+400}}`:                      nil, // not canonical itself
		`{"a":{"$in":[-0.00000000000000000001,12345678901234567890123,1e21,true,"\u0001\n"]}}`: nil,
	} {
		for _, selector := range all {
			if got := parse(t, selector).String(); got != want {
				t.Errorf("%s is %s, not %s", selector, got, want)
			}
		}
		got := parse(t, want).String()
		if all != nil && got != want || parse(t, got).String() != got {
			t.Errorf("%s becomes %s", want, got)
		}
	}
}

// What is nested as deep as is allowed can be read again from its canonical form.
func TestNesting(t *testing.T) {
	for _, selector := range []string{
		strings.Repeat(`{"$or": [{"i4": 1}, `, 31) + `{"t": "a"}` + strings.Repeat(`]}`, 31),
		strings.Repeat(`{"$and": [`, 31) + `{"t": "a"}` + strings.Repeat(`]}`, 31),
		`{"t": ` + strings.Repeat(`{"$not": `, 31) + `{"$eq": "a"}` + strings.Repeat(`}`, 32),
		strings.Repeat(`{"$nor": [{"i4": 1}, `, 15) + `{"t": "a"}` + strings.Repeat(`]}`, 15),
		strings.Repeat(`{"$and": [{"$not": {"t": "b"}}, {"$not": `, 15) + `{"t": "a"}` + strings.Repeat(`}]}`, 15),
	} {
		s := parse(t, selector)
		if again := parse(t, s.String()).String(); again != s.String() {
			t.Errorf("%s becomes %s", s, again)
		}
		if err := s.Check(kinds); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, selector := range refused {
		if len(selector) < 5000 {
			f.Add(selector)
		}
	}
	for _, selector := range selectors {
		f.Add(selector)
	}
	f.Add(`{"i4": {"$in": [-0, 0.0, 0e5, 1E+2, 1e-2, 123456789012345678901234567890.5]}, "$nor": [{"$and": [{"t": "\ud83d\ude00\\u0041\""}]}]}`)
	f.Add(`{"$and":[{"$not":{"b":true}},{"$not":{"i4":1}},{"$or":[{"i4":1},{"i4":2}]},{"$or":[{"i4":3},{"i4":4}]}]}`)
	f.Fuzz(func(t *testing.T, selector string) {
		s, err := Parse([]byte(selector))
		if err != nil {
			if !errors.Is(err, ErrSelector) {
				t.Fatal(err)
			}
			return
		}
		again, err := Parse([]byte(s.String()))
		if err != nil {
			t.Fatalf("canonical form %s: %v", s, err)
		}
		if again.String() != s.String() {
			t.Fatalf("canonical form %s becomes %s", s, again)
		}
		checked := s.Check(kinds)
		p, err := s.Compile(kinds, map[string]string{"org": "acme"})
		if checked != nil && err == nil {
			t.Fatalf("Check refuses what Compile takes: %v", checked)
		}
		if err == nil {
			if _, err := p.Matches(row("t", "acme")); err != nil {
				t.Fatal(err)
			}
		}
	})
}
