package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// short tells a name apart from others in a few characters that are always the same.
func short(n Name) string {
	sum := sha256.Sum256([]byte(n.SQL()))
	return hex.EncodeToString(sum[:4])
}

// text gives the qualified names in an SQL text of the source's the names that they have on the target. The server printed it with an
// empty search_path, so every name of a user's is qualified. Names in literals count where they are cast to regclass.
func (m *renamer) text(sql string) string {
	var out strings.Builder
	last := "" // the word before
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == '\'':
			end := closing(sql, i, '\'')
			out.WriteString(m.literal(sql[i:end], sql[end:]))
			i, last = end, ""
		case c == '"' || isNameStart(c):
			name, end := identifier(sql, i)
			if end+1 >= len(sql) || sql[end] != '.' || sql[end+1] != '"' && !isNameStart(sql[end+1]) {
				out.WriteString(sql[i:end])
				last = sql[i:end]
				i = end
				continue
			}
			second, whole := identifier(sql, end+1)
			full := Name{name, second}
			if to := m.meant(full, last, sql[whole:]); to == full {
				out.WriteString(sql[i:whole])
			} else {
				out.WriteString(to.SQL())
			}
			i, last = whole, ""
		case '0' <= c && c <= '9':
			end := i
			for end < len(sql) && (isNameByte(sql[end]) || sql[end] == '.') {
				end++
			}
			out.WriteString(sql[i:end])
			i, last = end, ""
		default:
			out.WriteByte(c)
			if c != ' ' && c != '\n' {
				last = ""
			}
			i++
		}
	}
	return out.String()
}

// meant is what a qualified name stands for, by the word before and the text behind it.
func (m *renamer) meant(n Name, before, behind string) Name {
	switch {
	case before == "REFERENCES":
		return m.table(n)
	case before == "COLLATE":
		return n
	case strings.HasPrefix(behind, "("):
		if to, is := m.ranges[n]; is { // the function of a range's name makes one
			return to
		}
		return n
	}
	if to, is := m.tables[n]; is {
		return to
	}
	if to, is := m.types[n]; is {
		return to
	}
	return n
}

// table is what a table is called that may not be among those that are described.
func (m *renamer) table(n Name) Name {
	if to, is := m.tables[n]; is {
		return to
	}
	to, _ := m.rules.name(n)
	return to
}

// literal renames what a literal names, if it is cast to regclass.
func (m *renamer) literal(literal, behind string) string {
	if !strings.HasPrefix(behind, "::regclass") && !strings.HasPrefix(behind, "::pg_catalog.regclass") {
		return literal
	}
	content := strings.ReplaceAll(literal[1:len(literal)-1], "''", "'")
	if content == "" || content[0] != '"' && !isNameStart(content[0]) {
		return literal
	}
	first, end := identifier(content, 0)
	if end+1 >= len(content) || content[end] != '.' || content[end+1] != '"' && !isNameStart(content[end+1]) {
		return literal
	}
	second, whole := identifier(content, end+1)
	if whole != len(content) {
		return literal
	}
	to, is := m.sequences[Name{first, second}]
	if !is {
		if to, is = m.tables[Name{first, second}]; !is {
			return literal
		}
	}
	return "'" + strings.ReplaceAll(to.String(), "'", "''") + "'"
}

// index renames a CREATE INDEX. Its index is not qualified.
func (m *renamer) index(definition, name string) string {
	before, rest, found := strings.Cut(definition, "INDEX ")
	if !found {
		return definition
	}
	_, end := identifier(rest, 0)
	return before + "INDEX " + postgres.Ident(name) + m.text(rest[end:])
}

// identifier reads one name and returns where it ends.
func identifier(sql string, at int) (name string, end int) {
	if sql[at] == '"' {
		end = closing(sql, at, '"')
		return strings.ReplaceAll(sql[at+1:end-1], `""`, `"`), end
	}
	for end = at; end < len(sql) && isNameByte(sql[end]); {
		end++
	}
	return sql[at:end], end
}

// closing is behind the quote that closes the one at a place; a doubled one is a character of what is quoted.
func closing(sql string, at int, quote byte) int {
	for i := at + 1; i < len(sql); i++ {
		if sql[i] != quote {
			continue
		}
		if i+1 < len(sql) && sql[i+1] == quote {
			i++
			continue
		}
		return i + 1
	}
	return len(sql)
}

func isNameStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func isNameByte(c byte) bool { return isNameStart(c) || c == '$' || '0' <= c && c <= '9' }
