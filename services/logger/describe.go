package logger

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/schema"
)

// describe names the row of a message that is too large, reading the message in pieces: table and values of the key.
func (f *feed) describe(body io.Reader) (row string, relation uint32) {
	row, relation, err := f.describeRow(bufio.NewReaderSize(body, describeBuffer))
	if err != nil {
		return fmt.Sprintf("a row that cannot be named (%v)", err), relation
	}
	return row, relation
}

const (
	maxShown       = 100 // bytes of a value in a text
	describeBuffer = 32 << 10
)

func (f *feed) describeRow(r *bufio.Reader) (string, uint32, error) {
	var head [1 + 4 + 1 + 2]byte // kind, relation, kind of the first tuple, number of its columns
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return "", 0, fmt.Errorf("read row: %w", err)
	}
	what, isRow := map[byte]string{'I': "insert into", 'U': "update of", 'D': "delete from"}[head[0]]
	if !isRow {
		return fmt.Sprintf("a message of kind %q", head[0]), 0, nil
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return "", 0, fmt.Errorf("read row: %w", err)
	}
	oid := binary.BigEndian.Uint32(head[1:])
	relation, ok := f.relations[oid]
	if !ok {
		return "", oid, errUnknownRelation
	}
	var keys []string
	for _, column := range relation.shape.Columns {
		text, err := describeValue(r)
		if err != nil {
			return "", oid, fmt.Errorf("read row: %w", err)
		}
		if column.Key {
			keys = append(keys, column.Name+"="+text)
		}
	}
	table := schema.Name{Schema: relation.shape.Schema, Name: relation.shape.Name}
	return fmt.Sprintf("%s table %s, row %s,", what, table, strings.Join(keys, " ")), oid, nil
}

func describeValue(r *bufio.Reader) (string, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	switch kind {
	case pgoutput.ValueNull:
		return "null", nil
	case pgoutput.ValueUnchanged:
		return "(unchanged)", nil
	}
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return "", err
	}
	length := int64(binary.BigEndian.Uint32(size[:]))
	shown := make([]byte, min(length, maxShown))
	if _, err := io.ReadFull(r, shown); err != nil {
		return "", err
	}
	if _, err := io.CopyN(io.Discard, r, length-int64(len(shown))); err != nil {
		return "", err
	}
	text := strings.ToValidUTF8(string(shown), "")
	if length > maxShown {
		text += "…"
	}
	return text, nil
}
