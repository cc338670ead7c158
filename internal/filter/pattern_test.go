package filter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// atoms are what random expressions are made of: characters that either side, or SQL, takes specially.
var atoms = []string{
	"a", "b", "c", "ab", "A", "1", "0", " ", `\n`, `\t`, "é", "ß", "k", "K", "😀", ".", `\.`, `\\`, `\*`, `\{`, `\[`, `\]`, `\(`, `\|`, `\^`, `\$`, "'", `"`, "#", "-", "_", "/", ":", "=", "&", `\x41`, `\x{212a}`, `\a`,
	"[ab]", "[^ab]", "[a-c]", "[^a-c]", `[\]]`, `[^\]]`, `[\-a]`, `[\\]`, `[\^a]`, "[[:alpha:]]", "[[:^digit:]]", "[[:space:]]", "[é-ü]", `[\x{80}-\x{10ffff}]`, `[^\x{0}-\x{7f}]`, `[\d_]`, `[^\n]`, `[\x{d7ff}-\x{e000}]`,
	`\d`, `\D`, `\w`, `\W`, `\s`, `\S`, `\pL`, `\p{Greek}`, `\pN`, `\p{Lu}`, "(?i:a)", "(?i:ks)", "(?i:[a-c])", "(?i:é)", "(?i:ß)", "(?s:.)", "(?s:.*)", "(?-s:.)", "", "()", "(?:)", "^", "$", `\A`, `\z`, `\Q.*\E`,
	"{", "}", "a{", "{1,", "]",
}

func randomPattern(r *rand.Rand, depth int) string {
	if depth == 0 {
		return pick(r, atoms)
	}
	group := func() string {
		return pick(r, []string{"(", "(?:", "(?P<x>", "(?i:"}) + randomPattern(r, depth-1) + ")"
	}
	switch r.IntN(6) {
	case 0:
		return group() + pick(r, []string{"*", "+", "?", "*?", "+?", "??", "{0}", "{1}", "{2}", "{0,2}", "{1,3}?", "{2,}", "{0,}", "{3,5}"})
	case 1:
		return "(?:" + randomPattern(r, depth-1) + "|" + randomPattern(r, depth-1) + ")"
	case 2:
		return pick(r, atoms) + pick(r, []string{"*", "+", "?", "{2}", "{1,2}", "{0,1}"})
	case 3:
		return randomPattern(r, depth-1) + "|" + randomPattern(r, depth-1)
	}
	return randomPattern(r, depth-1) + randomPattern(r, depth-1)
}

// patternTable has random texts of the characters that the atoms are about.
func patternTable(t *testing.T, r *rand.Rand) table {
	t.Helper()
	conn, err := postgres.Connect(t.Context(), pgtest.Shared(t).Database(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	pgtest.Exec(t, conn, "CREATE TABLE public.t (id int, t text)")
	pieces := []string{
		"a", "b", "c", "ab", "abc", "A", "B", "1", "0", "12", " ", "\n", "\t", "\v", "\f", "\r", "é", "É", "ü", "ß", "ẞ", "k", "K", "\u212a", "ſ", "s", "😀", ".", `\`, "*", "{", "}", "[", "]", "(", "|", "^", "$", "'", `"`, "#", "-", "_", "/", ":", "=", "&",
		"\u0001", "\a", "\u007f", "\u0080", "\u0085", "\u00a0", "\u2028", "\ufeff", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "λ", "Ω", "٣", "½", "日",
	}
	texts := []string{"", "aa", "aaa", "abab", "ab\n", "\nab", "a{1,", ".*"}
	texts = append(texts, pieces...)
	for range 60 {
		var b strings.Builder
		for range 1 + r.IntN(6) {
			b.WriteString(pick(r, pieces))
		}
		texts = append(texts, b.String())
	}
	for i, text := range texts {
		pgtest.Exec(t, conn, "INSERT INTO public.t VALUES ($1, $2)", i+1, text)
	}
	return readTable(t, conn)
}

func TestPatternsAgainstPostgreSQL(t *testing.T) {
	r := random(t)
	table := patternTable(t, r)
	const rounds, batch = 30, 25
	refusals := 0
	var counts [3]int
	for range rounds {
		var predicates []*Predicate
		for len(predicates) < batch {
			pattern := randomPattern(r, 1+r.IntN(4))
			s, err := Parse([]byte(fmt.Sprintf(`{"t": {"$regex": %s}}`, quoteJSON(pattern))))
			if err != nil {
				if !errors.Is(err, ErrSelector) {
					t.Fatal(err)
				}
				refusals++
				continue
			}
			p, err := s.Compile(table.columns, nil)
			if err != nil {
				t.Fatal(err)
			}
			predicates = append(predicates, p)
		}
		for i, n := range table.compare(t, predicates) {
			counts[i] += n
		}
		if t.Failed() {
			for _, p := range predicates {
				t.Logf("%s\n   %s", p.root.regex, p.root.pattern)
			}
			break
		}
	}
	t.Logf("%d expressions on %d texts: %d match, %d do not; %d were refused", rounds*batch, len(table.rows), counts[isTrue], counts[isFalse], refusals)
	if counts[isTrue] < 1000 || counts[isFalse] < 1000 || refusals > 3*rounds*batch {
		t.Error("that proves little")
	}
}

// The largest expressions that are taken are not too large for PostgreSQL.
func TestLargePatterns(t *testing.T) {
	table := patternTable(t, random(t))
	for _, pattern := range []string{
		`\pL{255}`, `(\pL|\pN){200}`, `(?:\pL{1,50}\PL{1,50}){5}`, `(?:a|b|[^c]){255}x{255}`, `(?:a?){200}(?:b{0,200})c{100}.{50}`, strings.Repeat("(?:ab){240}", 2), strings.Repeat(`[^a]?\pL?`, 6),
		`(?:(?:a{0,10}){0,9}){0,5}`, `(?i)` + strings.Repeat("straße", 160), strings.Repeat("ab|cd|", 150) + "b", strings.Repeat("(?:", 200) + "a" + strings.Repeat(")*b", 200), `(?:[a-z]+\d*){100}$`,
	} {
		p, err := parse(t, fmt.Sprintf(`{"t": {"$regex": %s}}`, quoteJSON(pattern))).Compile(table.columns, nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		table.compare(t, []*Predicate{p})
		t.Logf("%.60s: %v", pattern, time.Since(began))
	}
}
