package apply

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/discreet"
	"github.com/seed0419d559/syncline/internal/schema"
)

// RowCountError says that a statement touched another number of rows than its change says.
type RowCountError struct{ Want, Got int64 }

func (e *RowCountError) Error() string {
	return fmt.Sprintf("%d rows were touched instead of %d", e.Got, e.Want)
}

// ChangeError says which change could not be applied, and why. Nothing of its transaction was applied.
type ChangeError struct {
	Table     schema.Name
	Operation Operation
	Key       string // "id=5", shortened; for a row without a key the whole row
	Err       error
}

func (e *ChangeError) Error() string {
	verb := map[Operation]string{Insert: "insert into", Update: "update", Delete: "delete from"}[e.Operation]
	if e.Key == "" { // of an edited change its values are not read yet
		return fmt.Sprintf("%s table %s: %s", verb, e.Table, e.text())
	}
	return fmt.Sprintf("%s table %s, row %s: %s", verb, e.Table, discreet.Mark(e.Key), e.text())
}

func (e *ChangeError) text() string {
	var count *RowCountError
	if errors.As(e.Err, &count) && count.Got == 0 {
		return "the replica does not have this row"
	}
	var pg *pgconn.PgError
	if errors.As(e.Err, &pg) {
		text := discreet.Message(pg)
		if pg.Detail != "" {
			text += " (" + discreet.Mark(pg.Detail) + ")"
		}
		if pg.Code == "23505" {
			text = "the replica already has such a row: " + text
		}
		return text
	}
	return e.Err.Error()
}

func (e *ChangeError) Unwrap() error { return e.Err }

// describe names the change that an error is about.
func describe(err error, o *op) error {
	var done *ChangeError
	if o == nil || errors.As(err, &done) {
		return err
	}
	return &ChangeError{
		Table:     nameOf(o.plan.Target),
		Operation: o.operation,
		Key:       o.describeRow(),
		Err:       err,
	}
}

const describedValueBytes = 80

// describeRow names the row of a change by its key, as column=value, each value shortened.
func (o *op) describeRow() string {
	row := o.decodeOld(nil)
	if o.operation == Insert || row == nil {
		row = o.decodeNew(nil)
	}
	if len(row) == 0 {
		return "" // it is another's to name
	}
	columns := o.plan.locator
	if columns == nil {
		columns = o.plan.copyFields
	}
	var b strings.Builder
	b.WriteByte('(')
	for n, i := range columns {
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o.plan.Relation.Columns[i].Name)
		b.WriteByte('=')
		switch row[i].kind {
		case 'n':
			b.WriteString("NULL")
		case 'u':
			b.WriteString("(unchanged)")
		default:
			text := row[i].text
			if len(text) > describedValueBytes {
				b.WriteString(strings.ToValidUTF8(string(text[:describedValueBytes]), "") + "…")
			} else {
				b.Write(text)
			}
		}
	}
	b.WriteByte(')')
	return b.String()
}
