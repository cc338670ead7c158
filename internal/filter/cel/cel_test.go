package cel

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/filter"
)

// TestParse has the selector that each expression becomes, which filter's tests compare with PostgreSQL.
func TestParse(t *testing.T) {
	long := strings.Repeat(`a == 1 || `, 60) + `b == 2`
	for text, want := range map[string]string{
		`org == params.org && amount >= 10`:   `{"amount":{"$gte":10},"org":{"$param":"org"}}`,
		`org == params["my org"]`:             `{"org":{"$param":"my org"}}`,
		`10 < amount`:                         `{"amount":{"$gt":10}}`,
		`amount != -2 && amount != 3u`:        `{"$and":[{"amount":{"$ne":3}}],"amount":{"$ne":-2}}`,
		`amount == 0.12345678901234567890123`: `{"amount":0.12345678901234567890123}`,
		`amount == -.5`:                       `{"amount":-0.5}`,
		`active && !deleted`:                  `{"$not":{"deleted":true},"active":true}`,
		`org == null || note != null`:         `{"$or":[{"note":{"$exists":true}},{"org":{"$exists":false}}]}`,
		`org in ["b", "a", params.x]`:         `{"org":{"$in":["a","b",{"$param":"x"}]}}`,
		`!(org in ["a"])`:                     `{"$not":{"org":{"$in":["a"]}}}`,
		`org.startsWith("a.b")`:               `{"org":{"$regex":"^a\\.b"}}`,
		`org.endsWith("a|b")`:                 `{"org":{"$regex":"a\\|b$"}}`,
		`org.contains("(")`:                   `{"org":{"$regex":"\\("}}`,
		`org.matches("^a+$")`:                 `{"org":{"$regex":"^a+$"}}`,
		`row["Odd name"] == "é" && row["in"] == 1 && row.on == 2`: `{"Odd name":"é","in":1,"on":2}`,
		`at >= timestamp("2026-01-31T12:00:00Z")`:                 `{"at":{"$gte":"2026-01-31T12:00:00Z"}}`,
		long: `{"$or":[{"a":1},{"b":2}]}`,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		want, err := filter.Parse([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		if s.String() != want.String() {
			t.Errorf("%s: %s, want %s", text, s, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`org ==`:                 "line 1",
		``:                       "line 1",
		`true`:                   "a condition is expected",
		`a == b`:                 "a constant is expected",
		`1 == 1`:                 "has to be a column",
		`a + 1 == 2`:             "has to be a column",
		`a == 1 + 1`:             "a constant is expected",
		`size(a) == 1`:           "has to be a column",
		`a ? b : c`:              "not among what can be told",
		`has(a.b)`:               "not among what can be told",
		`a < null`:               "nothing is greater",
		`a in []`:                "not empty",
		`a in params.list`:       "list of constants",
		`a == b"x"`:              "a constant is a text",
		`startsWith("x")`:        "is written",
		`a.startsWith(params.x)`: "constant text",
		`a.matches("\\b")`:       "$regex",
		`a.b == 1`:               "has to be a column",
		`params == 1`:            "has to be a column",
		`a == "x\u0000"`:         "",
		strings.Repeat("(", 500): "recursion limit",
	} {
		s, err := Parse(text)
		if strings.Contains(text, `\u0000`) {
			if err == nil {
				err = s.Check([]filter.Column{{Name: "a", TypeOID: 25}}) // known only with the column's type
			}
		}
		if !errors.Is(err, filter.ErrSelector) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
	if s, err := Parse(`amount == "much"`); err != nil || !errors.Is(s.Check([]filter.Column{{Name: "amount", TypeOID: 1700}}), filter.ErrSelector) {
		t.Errorf("a text for a number: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`a == 1`, `!(a in ["x"]) || row["b"].matches("^x")`, `a == -.5e3`, `a == 1.`, `"\xff"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if !errors.Is(err, filter.ErrSelector) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if again, err := filter.Parse([]byte(s.String())); err != nil || again.String() != s.String() {
			t.Errorf("%q: %s is read as %v, %v", text, s, again, err)
		}
	})
}
