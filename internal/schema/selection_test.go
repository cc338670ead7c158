package schema

import (
	"errors"
	"strings"
	"testing"
)

func TestPatternMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, schema, name string
		want                  bool
	}{
		{"public.orders", "public", "orders", true},
		{"Public.ORDERS", "public", "orders", true},
		{"public.orders", "public", "Orders", false},
		{`public."Orders"`, "public", "Orders", true},
		{"public.*", "public", "anything at all", true},
		{"public.*", "publics", "x", false},
		{"*.*", "a", "b", true},
		{"*.orders", "b", "orders", true},
		{"public.log_*", "public", "log_2024", true},
		{"public.log_*", "public", "log", false},
		{"public.*_log_*", "public", "a_log_b_log_c", true},
		{"public.a*a", "public", "a", false},
		{"public.a*a", "public", "aa", true},
		{`public."*"`, "public", "x", false},
		{`public."*"`, "public", "*", true},
		{`"a.b"."c""d"`, "a.b", `c"d`, true},
		{"public.größe", "public", "größe", true},
		{`public."Größe*"`, "public", "Größe*", true},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Matches(Name{c.schema, c.name}); got != c.want {
			t.Errorf("%s matches %s.%s: %v", c.pattern, c.schema, c.name, got)
		}
		again, err := ParsePattern(p.String())
		if err != nil || again.String() != p.String() || again.Matches(Name{c.schema, c.name}) != c.want {
			t.Errorf("%s prints as %s, which is read as %s, %v", c.pattern, p, again, err)
		}
	}
}

func TestPatternRefused(t *testing.T) {
	for _, text := range []string{"", "orders", ".", "public.", ".orders", "a.b.c", `"a.b`, "public.a b", "public.a;b", "public.a'b", "a..b", `public.""`} {
		if p, err := ParsePattern(text); !errors.Is(err, ErrPattern) {
			t.Errorf("%q: got %v, %v", text, p, err)
		}
	}
	if _, err := ParsePattern("orders"); err == nil || !strings.Contains(err.Error(), "public.orders") {
		t.Errorf("the error does not show the way: %v", err)
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"public.orders", `"a""b".*x*`, `a."b`, "*.*", "ä.ö", `""."a"`, "\xff.a", "a.\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePattern(text)
		if err != nil {
			return
		}
		again, err := ParsePattern(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q prints as %q, which is read as %q, %v", text, p, again, err)
		}
	})
}

// TestPatternsAreBounded refuses at once what would take long to read.
func TestPatternsAreBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 10<<20), "public." + strings.Repeat("x", 600), "public." + strings.Repeat("\"\"\"\"", 127)} {
		if _, err := ParsePattern(text); !errors.Is(err, ErrPattern) || len(err.Error()) > 400 {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
	longest := "\"" + strings.Repeat("\"\"", 63) + "\".\"" + strings.Repeat("\"\"", 63) + "\""
	if _, err := ParsePattern(longest); err != nil {
		t.Error(err)
	}
}

func TestSelection(t *testing.T) {
	root := Name{"shop", "events"}
	for _, c := range []struct {
		include, exclude []string
		name             Name
		above            []Name
		want             bool
	}{
		{nil, nil, Name{"shop", "a"}, nil, true},
		{nil, nil, Name{"pg_catalog", "pg_class"}, nil, false},
		{nil, nil, Name{"syncline", "applied"}, nil, false},
		{[]string{"syncline.*"}, nil, Name{"syncline", "applied"}, nil, false},
		{[]string{"shop.*"}, nil, Name{"other", "a"}, nil, false},
		{[]string{"shop.*"}, []string{"shop.a"}, Name{"shop", "a"}, nil, false},
		{[]string{"shop.a"}, []string{"shop.*"}, Name{"shop", "a"}, nil, false},
		{[]string{"shop.events"}, nil, Name{"shop", "events_1"}, []Name{root}, true},
		{[]string{"shop.events_1"}, nil, Name{"shop", "events_1"}, []Name{root}, true},
		{[]string{"shop.events_1"}, nil, root, nil, false},
		{nil, []string{"shop.events"}, Name{"elsewhere", "events_1"}, []Name{root}, false},
	} {
		s, err := ParseSelection(c.include, c.exclude)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(c.name, c.above...); got != c.want {
			t.Errorf("include %v exclude %v: %s is selected: %v", c.include, c.exclude, c.name, got)
		}
	}
}
