// Package transcript reads the stream of a logger as people do: record by record, with names for tables and columns. Blocks are
// read in their stored form, and their chain and checksums are checked as an applier does: a hole is an error here too.
package transcript

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/schema"
)

// ErrNoRelation says that a change names a table shape that the stream has not told before.
var ErrNoRelation = errors.New("a change came before its relation")

// ErrAnswer says that the server sent something that is no answer of Follow.
var ErrAnswer = errors.New("the server's answer is malformed; is it a newer version?")

// Kinds of records that are no row operations; those are "insert", "update" and "delete".
const (
	KindBegin    = "begin"
	KindCommit   = "commit"
	KindMessage  = "message"
	KindOrigin   = "origin"
	KindTruncate = "truncate"
)

// Record is one record of a transaction, as it stands in JSON. Values are PostgreSQL's text forms.
type Record struct {
	Kind     string   `json:"kind"`
	XID      uint32   `json:"xid,omitempty"`
	Time     string   `json:"commit_time,omitempty"`
	Position string   `json:"position,omitempty"` // of a commit: LOGID@LSN
	Tables   []string `json:"tables,omitempty"`
	Table    string   `json:"table,omitempty"`
	Old      Columns  `json:"old,omitempty"`
	New      Columns  `json:"new,omitempty"`
	// Unchanged are the columns of New with a large value that the update left as it was, so that it is not in the log.
	Unchanged []string `json:"unchanged,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
	Content   []byte   `json:"content,omitempty"`
	Origin    string   `json:"origin,omitempty"`
}

// Columns are the values of a row in the order of its columns.
type Columns []Column

// Column is one value of a row.
type Column struct {
	Name  string
	Null  bool
	Value string
}

// MarshalJSON makes an object that keeps the order of the columns.
func (c Columns) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	out.WriteByte('{')
	for i := range c {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := encoder.Encode(c[i].Name); err != nil {
			return nil, err
		}
		out.WriteByte(':')
		var value any
		if !c[i].Null {
			value = c[i].Value
		}
		if err := encoder.Encode(value); err != nil {
			return nil, err
		}
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// recordOf names what a record of a block holds.
func recordOf(b *block.Block, r *block.Record, relations map[change.RelationHash]*changev1.Relation) (*Record, error) {
	switch r.Kind {
	case block.KindBegin:
		return &Record{Kind: KindBegin, XID: r.Begin.XID, Time: commitTime(r.Begin.CommitTime)}, nil
	case block.KindCommit:
		position := change.Position{LogID: b.LogID, LSN: r.Commit.EndLSN}
		return &Record{Kind: KindCommit, XID: r.Commit.XID, Time: commitTime(r.Commit.CommitTime), Position: position.String()}, nil
	case block.KindMessage:
		return &Record{Kind: KindMessage, Prefix: r.Message.Prefix, Content: r.Message.Content}, nil
	case block.KindOrigin:
		return &Record{Kind: KindOrigin, Origin: r.Origin.ServerID + r.Origin.Name}, nil
	case block.KindTruncate:
		truncate := &Record{Kind: KindTruncate}
		for _, index := range r.Truncate.Relations {
			relation := relations[b.Relations[index]]
			if relation == nil {
				return nil, ErrNoRelation
			}
			truncate.Tables = append(truncate.Tables, tableName(relation))
		}
		return truncate, nil
	case block.KindChange:
		return changeRecord(&r.Change, relations[b.Relations[r.Change.Relation]])
	}
	return nil, fmt.Errorf("a record of unknown kind %v: %w", r.Kind, ErrAnswer)
}

func changeRecord(c *block.Change, relation *changev1.Relation) (*Record, error) {
	if relation == nil {
		return nil, ErrNoRelation
	}
	r := &Record{Kind: c.Operation.String(), Table: tableName(relation)}
	var err error
	if c.HasOld {
		if r.Old, _, err = values(relation, c.Old, c.OldIsKey); err != nil {
			return nil, err
		}
	}
	if c.HasNew {
		r.New, r.Unchanged, err = values(relation, c.New, false)
	}
	return r, err
}

// tableName is a table's name as it is typed for --table: quoted where it has to be.
func tableName(relation *changev1.Relation) string {
	return schema.Name{Schema: relation.GetSchema(), Name: relation.GetName()}.String()
}

func commitTime(t change.Timestamp) string {
	return t.Time().Format("2006-01-02T15:04:05.000000Z07:00")
}

// values returns a row by column name. Of an old row that holds the key only, the other columns are left out, for their
// null means nothing.
func values(relation *changev1.Relation, row block.Row, keyOnly bool) (known Columns, unchanged []string, err error) {
	if len(row.Kinds) != len(relation.GetColumns()) {
		return nil, nil, fmt.Errorf("a row of %s with %d columns instead of %d: %w", tableName(relation), len(row.Kinds), len(relation.GetColumns()), ErrAnswer)
	}
	reader := row.Columns()
	for _, c := range relation.GetColumns() {
		kind, value := reader.Next()
		switch {
		case kind == block.ValueText:
			known = append(known, Column{Name: c.GetName(), Value: string(value)})
		case kind == block.ValueUnchanged:
			unchanged = append(unchanged, c.GetName())
		case !keyOnly || c.GetKey():
			known = append(known, Column{Name: c.GetName(), Null: true})
		}
	}
	return known, unchanged, nil
}
