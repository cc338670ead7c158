package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Shape is what of a table decides whether rows and changes of another one fit: a line for each column, for the key, and for each unique
// index. What does no harm is not in it: the order of columns, names of indexes, defaults, other indexes. It is the same on every
// version of PostgreSQL. Lines are sorted, so that two shapes can be compared line by line.
func (t Table) Shape() []string {
	var lines []string
	for _, c := range t.Columns {
		line := "column " + display(c.Name) + " " + c.Type
		if c.Collation != "" {
			line += " COLLATE " + c.Collation
		}
		if c.NotNull {
			line += " NOT NULL"
		}
		if c.Generated != "" {
			line += " GENERATED"
		}
		lines = append(lines, line)
	}
	if t.PrimaryKey != nil {
		lines = append(lines, "primary key ("+displayAll(t.PrimaryKey)+")")
	}
	for _, x := range t.Indexes {
		if x.identifies() && !x.Primary {
			lines = append(lines, "unique ("+displayAll(x.Columns)+")")
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func displayAll(names []string) string {
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = display(n)
	}
	return strings.Join(shown, ", ")
}

// Fingerprint is one short text for a shape: equal for equal shapes, and for no others.
func Fingerprint(shape []string) string {
	sum := sha256.Sum256([]byte(strings.Join(shape, "\n")))
	return hex.EncodeToString(sum[:8])
}

// ShapeChanges says what is different between two shapes of one table, a sentence for each line.
func ShapeChanges(before, after []string) []string {
	was, is := map[string]string{}, map[string]string{} // the rest of a column's line, by its name
	var changes []string
	for _, line := range before {
		if name, rest, column := cutColumn(line); column {
			was[name] = rest
		} else if !slices.Contains(after, line) {
			changes = append(changes, line+" is gone")
		}
	}
	for _, line := range after {
		if name, rest, column := cutColumn(line); column {
			is[name] = rest
		} else if !slices.Contains(before, line) {
			changes = append(changes, line+" is new")
		}
	}
	for name, rest := range was {
		now, there := is[name]
		switch {
		case !there:
			changes = append(changes, "column "+name+" is gone")
		case now != rest:
			changes = append(changes, "column "+name+" was "+rest+" and is "+now)
		}
	}
	for name, rest := range is {
		if _, there := was[name]; !there {
			changes = append(changes, "column "+name+" "+rest+" is new")
		}
	}
	slices.Sort(changes)
	return changes
}

// cutColumn splits the line of a column. A quoted name may hold spaces and doubled quotes.
func cutColumn(line string) (name, rest string, ok bool) {
	line, ok = strings.CutPrefix(line, "column ")
	if !ok {
		return "", "", false
	}
	if !strings.HasPrefix(line, `"`) {
		name, rest, ok = strings.Cut(line, " ")
		return name, rest, ok
	}
	for i := 1; i < len(line); i++ {
		if line[i] != '"' {
			continue
		}
		if i+1 < len(line) && line[i+1] == '"' {
			i++
			continue
		}
		return line[:i+1], strings.TrimPrefix(line[i+1:], " "), true
	}
	return "", "", false
}
