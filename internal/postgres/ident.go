package postgres

import "strings"

// Ident quotes the parts of a possibly qualified SQL identifier: Ident("a", `b"c`) is "a"."b""c". It is the only place
// where identifiers are quoted. PostgreSQL identifiers cannot hold a NUL byte; one is dropped, as PostgreSQL would refuse it.
func Ident(parts ...string) string {
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteByte('"')
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(part, "\x00", ""), `"`, `""`))
		b.WriteByte('"')
	}
	return b.String()
}

// Idents quotes each name and joins them with a comma, for column lists.
func Idents(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = Ident(name)
	}
	return strings.Join(quoted, ", ")
}

// Literal quotes a string as an SQL literal, for the statements that take no parameters (the replication commands and
// CREATE PUBLICATION options). Everything else passes values as parameters.
func Literal(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`) + `'`
	}
	return `'` + strings.ReplaceAll(s, `'`, `''`) + `'`
}
