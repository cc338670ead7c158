package copytext

import (
	"bytes"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, row := range [][][]byte{
		{nil}, {{}}, {[]byte(`\N`)}, {[]byte("a\tb\nc\rd\\e"), nil, []byte("é\x00\xff"), {}}, {nil, nil}, {[]byte(`\.`)},
	} {
		line := Append(nil, row)
		if line[len(line)-1] != '\n' || bytes.Count(line, []byte("\n")) != 1 {
			t.Errorf("%q is not one line", line)
		}
		got, err := Parse(line[:len(line)-1])
		if err != nil || len(got) != len(row) {
			t.Fatalf("%q: %q, %v", row, got, err)
		}
		for i := range row {
			if (row[i] == nil) != (got[i] == nil) || !bytes.Equal(row[i], got[i]) {
				t.Errorf("%q came back as %q", row, got)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, line := range []string{`a\`, `\x`, "a\nb", "\r", `\Na`} {
		if got, err := Parse([]byte(line)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

// FuzzParse: whatever is read is written again as it was.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", `\N`, `a\tb`, "a\t\\N\t", `\\\\`, `\`, "\xff\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		values, err := Parse(line)
		if err != nil {
			return
		}
		if again := Append(nil, values); !bytes.Equal(again[:len(again)-1], line) {
			t.Errorf("%q became %q", line, again)
		}
	})
}
