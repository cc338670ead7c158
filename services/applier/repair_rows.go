package applier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/copytext"
	"github.com/seed0419d559/syncline/internal/discreet"
	"github.com/seed0419d559/syncline/internal/schema"
)

// rowThere is a row of the source, with its values in the order of the unit's reading.
type rowThere struct {
	values [][]byte
	count  int64
}

// rowHere is a row of the target; values has the columns that only the target has behind those of the reading.
type rowHere struct {
	table, place string
	values       [][]byte
}

// rowsAlike are the target's rows of one identity. Of a great many equal rows without a key some are known only by their number.
type rowsAlike struct {
	rows  []*rowHere
	count int64
}

// maxAlike is how many equal rows of one batch are known by their places.
const maxAlike = 100_000

// rowChange makes one row equal: here is nil for an insert, there for a delete.
type rowChange struct {
	here  *rowHere
	there [][]byte
}

func (c rowChange) action() applierv1.RepairAction {
	switch {
	case c.here == nil:
		return applierv1.RepairAction_REPAIR_ACTION_INSERT
	case c.there == nil:
		return applierv1.RepairAction_REPAIR_ACTION_DELETE
	}
	return applierv1.RepairAction_REPAIR_ACTION_UPDATE
}

// readingOf is how a unit's rows are read on the target.
func readingOf(u *verifyUnit) checksum.Table {
	return checksum.NewTable(u.target, u.partitioned, u.key, u.columns, u.order).Where(u.where)
}

// identityOf names a row: by its key, or without one by its hash.
func identityOf(u *verifyUnit, values [][]byte) string {
	if len(u.key) > 0 {
		return string(bytes.Join(values[:len(u.key)], []byte{0}))
	}
	hash := checksum.RowHash(values)
	return string(hash[:])
}

// rowsThere reads a batch's rows of the source, by their identity.
func (p *repair) rowsThere(ctx context.Context, s copySnapshot, b *batch) (map[string]*rowThere, error) {
	rows := map[string]*rowThere{}
	u := b.table.unit
	size := 0
	for _, name := range u.sources {
		err := p.readSource(ctx, s, b, name, func(r rowThere) error {
			if size += sizeOf(r.values); size > maxBatchBytes && b.size() > 1 {
				return errTooLarge
			}
			id := identityOf(u, r.values)
			switch known := rows[id]; {
			case known == nil:
				rows[id] = &r
			case len(u.key) > 0:
				return fmt.Errorf("the key %s is in more than one partition of the source", discreet.Mark(fmt.Sprintf("%q", r.values[:len(u.key)])))
			default:
				known.count += r.count
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func sizeOf(values [][]byte) int {
	n := 0
	for _, v := range values {
		n += len(v)
	}
	return n
}

// readSource reads a batch's rows of one table of the source, and makes sure that they are all.
func (p *repair) readSource(ctx context.Context, s copySnapshot, b *batch, name schema.Name, take func(rowThere) error) error {
	u := b.table.unit
	request := &inventoryv1.ReadRowsRequest{
		SnapshotId: s.id, Schema: name.Schema, Table: name.Name, Columns: readingOf(u).Columns(), Key: u.key, KeysAsText: b.asText,
		Set: p.source.set.name, Parameters: p.source.set.parameters, SetVersion: p.source.set.version,
	}
	for _, key := range b.keys {
		request.Keys = append(request.Keys, &inventoryv1.RowKey{Values: key})
	}
	for _, hash := range b.hashes {
		request.Hashes = append(request.Hashes, hash[:])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.source.inventoryClient().ReadRows(ctx, request)
	if err != nil {
		return sourceError(err)
	}
	var rest []byte
	var end *inventoryv1.ReadRowsEnd
	lines := int64(0)
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && end != nil && end.GetLines() == lines && len(rest) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("read the source: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return sourceError(err)
		}
		end = answer.GetEnd()
		data := answer.GetData()
		for {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				rest = append(rest, data...)
				break
			}
			line := data[:i]
			if len(rest) > 0 {
				rest = append(rest, line...)
				line = rest
			}
			data = data[i+1:]
			row, err := parseRow(u, line)
			if err == nil {
				err = take(row)
			}
			if err != nil {
				return err
			}
			rest = rest[:0]
			lines++
		}
	}
}

// errMalformedRow says that the source's inventory answered with something else than was asked for.
var errMalformedRow = errors.New("the source's answer is malformed")

func parseRow(u *verifyUnit, line []byte) (rowThere, error) {
	row := rowThere{count: 1}
	want := len(u.columns)
	if len(u.key) == 0 {
		want++
	}
	var err error
	if want > 0 {
		if row.values, err = copytext.Parse(line); err != nil {
			return row, err
		}
	}
	if len(row.values) != want {
		return row, errMalformedRow
	}
	if len(u.key) == 0 {
		if row.count, err = strconv.ParseInt(string(row.values[0]), 10, 64); err != nil || row.count < 1 {
			return row, errMalformedRow
		}
		row.values = row.values[1:]
	}
	return row, nil
}

// rowsHere reads and locks a batch's rows of the target, by their identity; more are columns that only the target has.
func rowsHere(ctx context.Context, tx pgx.Tx, b *batch, more []string) (map[string]*rowsAlike, error) {
	all := map[string]*rowsAlike{}
	u := b.table.unit
	pick := checksum.Pick{Keys: b.keys, AsText: b.hereAsText, Lock: true, More: more}
	if len(u.key) == 0 {
		pick = checksum.Pick{Hashes: map[checksum.Hash]bool{}}
		for _, hash := range b.hashes {
			pick.Hashes[hash] = true
		}
	}
	size := 0
	err := readingOf(u).Pick(ctx, tx.Conn().PgConn(), pick, func(r checksum.Picked) error {
		id := string(r.Hash[:])
		if len(u.key) > 0 {
			id = identityOf(u, r.Values)
		}
		alike := all[id]
		if alike == nil {
			alike = &rowsAlike{}
			all[id] = alike
		}
		alike.count++
		row := &rowHere{table: r.Table, place: r.Place}
		size += differingRowBytes
		switch {
		case len(u.key) == 0 && len(alike.rows) > 0:
			row.values = alike.rows[0].values
		default:
			for _, v := range r.Values {
				row.values = append(row.values, slices.Clone(v))
			}
			size += sizeOf(r.Values)
		}
		if size > maxBatchBytes && b.size() > 1 {
			return errTooLarge
		}
		if len(u.key) > 0 || len(alike.rows) < maxAlike {
			alike.rows = append(alike.rows, row)
		}
		return nil
	})
	return all, err
}

// changesOf compares a batch's rows of both sides.
func changesOf(u *verifyUnit, there map[string]*rowThere, here map[string]*rowsAlike, onlyInserts bool) []rowChange {
	var changes []rowChange
	for id, source := range there {
		targets := here[id]
		switch {
		case targets == nil:
			targets = &rowsAlike{}
		case len(u.key) > 0:
			if !onlyInserts {
				changes = append(changes, changesOfKey(targets.rows, source.values)...)
			}
			continue
		}
		// Equal rows without a key may be more than should be written at once; the next comparison finds the others.
		most := max(maxBatchBytes/(sizeOf(source.values)+differingRowBytes), 1)
		for range min(source.count-targets.count, int64(most)) {
			changes = append(changes, rowChange{there: source.values})
		}
	}
	if onlyInserts {
		return changes
	}
	for id, targets := range here {
		stay := int64(0)
		if source := there[id]; source != nil {
			stay = source.count
		}
		if len(u.key) > 0 && stay > 0 {
			continue
		}
		for i := range min(targets.count-stay, int64(len(targets.rows))) {
			changes = append(changes, rowChange{here: targets.rows[i]})
		}
	}
	return changes
}

// changesOfKey leaves one of the target's rows of a key, whose uniqueness the target need not enforce.
func changesOfKey(targets []*rowHere, source [][]byte) (changes []rowChange) {
	stays := slices.IndexFunc(targets, func(t *rowHere) bool { return sameValues(t.values[:len(source)], source) })
	if stays < 0 {
		stays = 0
		changes = append(changes, rowChange{targets[0], source})
	}
	for i, t := range targets {
		if i != stays {
			changes = append(changes, rowChange{here: t})
		}
	}
	return changes
}

func sameValues(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y []byte) bool { return (x == nil) == (y == nil) && bytes.Equal(x, y) })
}

// describeChanges counts and names what was changed.
func (p *repair) describeChanges(t *repairedTable, u *verifyUnit, changes []rowChange) error {
	columns := readingOf(u).Columns()
	var rows []*applierv1.RepairedRow
	for _, c := range changes {
		switch c.action() {
		case applierv1.RepairAction_REPAIR_ACTION_INSERT:
			t.result.Inserted++
		case applierv1.RepairAction_REPAIR_ACTION_DELETE:
			t.result.Deleted++
		default:
			t.result.Updated++
		}
		row := nameChange(u, c, columns)
		if n := len(rows); n > 0 && len(u.key) == 0 && rows[n-1].GetAction() == row.GetAction() && slices.Equal(rows[n-1].GetKey(), row.GetKey()) {
			rows[n-1].Count++
		} else if t.named+n < p.named {
			rows = append(rows, row)
		}
	}
	return p.rows(t, rows)
}

// nameChange describes one change.
func nameChange(u *verifyUnit, c rowChange, columns []string) *applierv1.RepairedRow {
	values := c.there
	if values == nil {
		values = c.here.values[:len(columns)]
	}
	var key, changed []string
	for _, v := range values[:len(u.key)] {
		key = append(key, string(v))
	}
	if len(u.key) == 0 {
		key = []string{shortRow(columns, values)}
	}
	if c.action() == applierv1.RepairAction_REPAIR_ACTION_UPDATE {
		for i, name := range columns {
			if !sameValues(c.here.values[i:i+1], c.there[i:i+1]) {
				changed = append(changed, name)
			}
		}
	}
	return repairedRow(u, c.action(), key, changed, 1)
}

// shortRow makes a text of a row for people, in which long values are cut.
func shortRow(columns []string, values [][]byte) string {
	return strings.ToValidUTF8(checksum.Describe(columns, values), "\uFFFD")
}
