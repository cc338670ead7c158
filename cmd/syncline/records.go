package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// errNoRelation says that a change names a table shape that the stream has not told before.
var errNoRelation = errors.New("a change came before its relation")

// recordPrinter prints the records of transactions, one on each line, for people or as JSON.
type recordPrinter struct {
	out  *bufio.Writer
	json bool
}

// line is one printed record, as it stands in JSON. Values are PostgreSQL's text forms.
type line struct {
	Kind     string   `json:"kind"`
	XID      uint32   `json:"xid,omitempty"`
	Time     string   `json:"commit_time,omitempty"`
	Position string   `json:"position,omitempty"`
	Tables   []string `json:"tables,omitempty"`
	Table    string   `json:"table,omitempty"`
	Old      columns  `json:"old,omitempty"`
	New      columns  `json:"new,omitempty"`
	// Unchanged are the columns of New with a large value that the update left as it was, so that it is not in the log.
	Unchanged []string `json:"unchanged,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
	Content   []byte   `json:"content,omitempty"`
	Origin    string   `json:"origin,omitempty"`
}

// columns are the values of a row in the order of its columns.
type columns []column

type column struct {
	name  string
	null  bool
	value string
}

// MarshalJSON makes an object that keeps the order of the columns.
func (c columns) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	out.WriteByte('{')
	for i := range c {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := encoder.Encode(c[i].name); err != nil {
			return nil, err
		}
		out.WriteByte(':')
		var value any
		if !c[i].null {
			value = c[i].value
		}
		if err := encoder.Encode(value); err != nil {
			return nil, err
		}
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// String is name=value for each column, on one line.
func (c columns) String() string {
	parts := make([]string, len(c))
	for i := range c {
		value := "NULL"
		if !c[i].null {
			value = valueText(c[i].value)
		}
		parts[i] = valueText(c[i].name) + "=" + value
	}
	return strings.Join(parts, " ")
}

// valueText quotes what could be mistaken for something else, or would break the line.
func valueText(s string) string {
	special := func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '"' || r == '=' || r == '→'
	}
	if s == "" || s == "NULL" || strings.ContainsFunc(s, special) {
		return strconv.Quote(s)
	}
	return s
}

// print prints one record of a block whose relations are known.
func (p recordPrinter) print(b *block.Block, r *block.Record, relations map[change.RelationHash]*changev1.Relation) error {
	l, err := lineOf(b, r, relations)
	if err != nil {
		return err
	}
	if !p.json {
		_, err := fmt.Fprintln(p.out, l.text())
		return err
	}
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(l)
}

func lineOf(b *block.Block, r *block.Record, relations map[change.RelationHash]*changev1.Relation) (*line, error) {
	switch r.Kind {
	case block.KindBegin:
		return &line{Kind: "begin", XID: r.Begin.XID, Time: commitTime(r.Begin.CommitTime)}, nil
	case block.KindCommit:
		position := change.Position{LogID: b.LogID, LSN: r.Commit.EndLSN}
		return &line{Kind: "commit", XID: r.Commit.XID, Time: commitTime(r.Commit.CommitTime), Position: position.String()}, nil
	case block.KindMessage:
		return &line{Kind: "message", Prefix: r.Message.Prefix, Content: r.Message.Content}, nil
	case block.KindOrigin:
		return &line{Kind: "origin", Origin: r.Origin.ServerID + r.Origin.Name}, nil
	case block.KindTruncate:
		l := &line{Kind: "truncate"}
		for _, index := range r.Truncate.Relations {
			relation := relations[b.Relations[index]]
			if relation == nil {
				return nil, errNoRelation
			}
			l.Tables = append(l.Tables, tableText(relation.GetSchema(), relation.GetName()))
		}
		return l, nil
	case block.KindChange:
		return changeLine(&r.Change, relations[b.Relations[r.Change.Relation]])
	}
	return nil, fmt.Errorf("a record of unknown kind %v: %w", r.Kind, errAnswer)
}

func changeLine(c *block.Change, relation *changev1.Relation) (*line, error) {
	if relation == nil {
		return nil, errNoRelation
	}
	l := &line{Kind: c.Operation.String(), Table: tableText(relation.GetSchema(), relation.GetName())}
	var err error
	if c.HasOld {
		if l.Old, _, err = values(relation, c.Old, c.OldIsKey); err != nil {
			return nil, err
		}
	}
	if c.HasNew {
		l.New, l.Unchanged, err = values(relation, c.New, false)
	}
	return l, err
}

func commitTime(t change.Timestamp) string {
	return t.Time().Format("2006-01-02T15:04:05.000000Z07:00")
}

// values returns a row by column name. Of an old row that holds the key only, the other columns are left out, for their
// null means nothing.
func values(relation *changev1.Relation, row block.Row, keyOnly bool) (known columns, unchanged []string, err error) {
	if len(row.Kinds) != len(relation.GetColumns()) {
		return nil, nil, fmt.Errorf("a row of %s with %d columns instead of %d: %w", tableText(relation.GetSchema(), relation.GetName()), len(row.Kinds), len(relation.GetColumns()), errAnswer)
	}
	reader := row.Columns()
	for _, c := range relation.GetColumns() {
		kind, value := reader.Next()
		switch {
		case kind == block.ValueText:
			known = append(known, column{name: c.GetName(), value: string(value)})
		case kind == block.ValueUnchanged:
			unchanged = append(unchanged, c.GetName())
		case !keyOnly || c.GetKey():
			known = append(known, column{name: c.GetName(), null: true})
		}
	}
	return known, unchanged, nil
}

// text is the line for people.
func (l *line) text() string {
	switch l.Kind {
	case "begin":
		return fmt.Sprintf("BEGIN %d  %s", l.XID, l.Time)
	case "commit":
		return fmt.Sprintf("COMMIT %d  %s", l.XID, l.Position)
	case "message":
		return fmt.Sprintf("  message %s %q", printable(l.Prefix), l.Content)
	case "origin":
		return "  origin " + printable(l.Origin)
	case "truncate":
		return "  truncate " + printable(strings.Join(l.Tables, ", "))
	}
	text := fmt.Sprintf("  %s %s:", l.Kind, printable(l.Table))
	if len(l.Old) > 0 {
		text += " " + l.Old.String()
	}
	if len(l.Old) > 0 && l.Kind == "update" {
		text += " →"
	}
	if len(l.New) > 0 {
		text += " " + l.New.String()
	}
	if len(l.Unchanged) > 0 {
		text += " (unchanged: " + printable(strings.Join(l.Unchanged, ", ")) + ")"
	}
	return text
}
