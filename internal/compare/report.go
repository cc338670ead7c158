package compare

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kind is what is different.
type Kind int

// The kinds of differences. a is what is expected, b what is tested.
const (
	_            Kind = iota
	MissingTable      // the table is not in b
	ExtraTable        // the table is only in b
	Columns           // names or types of columns differ; the common ones are compared
	Missing           // a row of a is not in b, or not as often
	Extra             // a row of b is not in a
	Changed           // the key is on both sides, with other values
	Doubled           // a row of a is in b more often
	Sequence          // a sequence stands elsewhere
)

var kindNames = [...]string{"", "missing table", "extra table", "columns", "missing", "extra", "changed", "doubled", "sequence"}

func (k Kind) String() string { return kindNames[k] }

// Difference is one difference. Long values are cut.
type Difference struct {
	Table string // schema.name, without quotes
	Kind  Kind
	Key   string // "id=5, part=a"; for a table without a key the text of the row
	Count int64  // rows, for Missing, Extra, Changed and Doubled
	A, B  string // the row, the columns that differ, or the state, on either side
}

func (d Difference) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %s", d.Table, d.Kind)
	if d.Count > 1 {
		fmt.Fprintf(&s, " (%d rows)", d.Count)
	}
	if d.Key != "" {
		fmt.Fprintf(&s, " %s", d.Key)
	}
	if d.A != "" {
		fmt.Fprintf(&s, "\n    a: %s", d.A)
	}
	if d.B != "" {
		fmt.Fprintf(&s, "\n    b: %s", d.B)
	}
	return s.String()
}

// Table says what was compared.
type Table struct {
	Name         string // schema.name, without quotes
	RowsA, RowsB int64
}

// Report is the outcome of a comparison.
type Report struct {
	Tables      []Table        // all that are on both sides, in order of name
	Differences []Difference   // the first ones
	Counts      map[Kind]int64 // all differences; rows for the kinds that count rows
}

// Equal tells whether there was no difference.
func (r Report) Equal() bool { return len(r.Counts) == 0 }

// Rows is the number of rows of a in the tables that were compared.
func (r Report) Rows() (rows int64) {
	for _, t := range r.Tables {
		rows += t.RowsA
	}
	return rows
}

// String is one line when all is equal, and otherwise a line for each difference that the report describes.
func (r Report) String() string {
	var s strings.Builder
	if r.Equal() {
		fmt.Fprintf(&s, "equal: %d tables, %d rows", len(r.Tables), r.Rows())
		return s.String()
	}
	s.WriteString("different:")
	for kind := MissingTable; kind <= Sequence; kind++ {
		if n := r.Counts[kind]; n > 0 {
			fmt.Fprintf(&s, " %d %s,", n, kind)
		}
	}
	fmt.Fprintf(&s, " in %d tables, %d rows", len(r.Tables), r.Rows())
	for _, d := range r.Differences {
		s.WriteString("\n  " + d.String())
	}
	return s.String()
}

func (r *Report) add(details int, d Difference) {
	if r.Counts == nil {
		r.Counts = map[Kind]int64{}
	}
	r.Counts[d.Kind] += max(1, d.Count)
	if len(r.Differences) < details {
		r.Differences = append(r.Differences, d)
	}
}

// describe gives the key and the row of a stream's group.
func (p plan) describe(s *stream) (key, row string) {
	if p.keyless {
		return cut(s.key[0]), ""
	}
	return p.keyText(s), cut(bytes.ReplaceAll(s.line, []byte{'\t'}, []byte(" | ")))
}

func (p plan) keyText(s *stream) string {
	var parts []string
	for i, name := range p.key {
		parts = append(parts, name+"="+cut(s.key[i]))
	}
	return strings.Join(parts, ", ")
}

// describeChange names the columns whose values differ.
func (p plan) describeChange(left, right *stream) (key, a, b string) {
	as, bs := bytes.Split(left.line, []byte{'\t'}), bytes.Split(right.line, []byte{'\t'})
	var left2, right2 []string
	for i, name := range p.fields {
		if i < len(as) && i < len(bs) && !bytes.Equal(as[i], bs[i]) {
			x, y := cutAround(as[i], bs[i])
			left2 = append(left2, name+"="+x)
			right2 = append(right2, name+"="+y)
		}
	}
	return p.keyText(left), strings.Join(left2, ", "), strings.Join(right2, ", ")
}

const longestText = 200

// cut keeps the beginning of a long value.
func cut(text []byte) string {
	if len(text) <= longestText {
		return string(text)
	}
	end := longestText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:end], len(text))
}

// cutAround cuts two long values so that the first place where they differ is seen.
func cutAround(a, b []byte) (string, string) {
	same := 0
	for same < len(a) && same < len(b) && a[same] == b[same] {
		same++
	}
	if same < longestText/2 {
		return cut(a), cut(b)
	}
	from := same - longestText/4
	for from > 0 && !utf8.RuneStart(a[from]) {
		from--
	}
	show := func(text []byte) string { return fmt.Sprintf("[from byte %d] …%s", from, cut(text[from:])) }
	return show(a), show(b)
}
