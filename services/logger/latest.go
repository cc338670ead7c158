package logger

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// Bounds of a key as it is held and shown. No key of an index is as long as either.
const (
	maxShownValue = 4 << 10
	maxShownKey   = 64 << 10
	entryOverhead = 200 // bytes of memory and of an answer, about
)

// latest holds the latest action for each table and key that it was told of. It is pure.
type latest struct {
	entries map[string]*latestEntry
	bytes   int // about, of what is held
	count   int // actions so far, which order the entries
}

// latestEntry is an action. Where and when its transaction was committed is known only at its end.
type latestEntry struct {
	number      int
	relation    *change.Relation
	action      loggerv1.Action
	key         []*loggerv1.KeyColumn
	size        int
	transaction *committed
}

// committed is where and when a transaction was committed.
type committed struct {
	end  change.LSN
	time change.Timestamp
}

func newLatest() *latest { return &latest{entries: make(map[string]*latestEntry)} }

// change takes a row operation on a relation. Nothing of the record is kept.
func (l *latest) change(r *change.Relation, c *block.Change, t *committed) {
	switch c.Operation {
	case block.Insert:
		l.put(r, loggerv1.Action_ACTION_CREATE, identify(r, c.New, block.Row{}), t)
	case block.Delete:
		l.put(r, loggerv1.Action_ACTION_DELETE, identify(r, c.Old, block.Row{}), t)
	case block.Update:
		key := identify(r, c.New, c.Old)
		if c.HasOld {
			if old := identify(r, c.Old, block.Row{}); old.text != key.text {
				l.put(r, loggerv1.Action_ACTION_DELETE, old, t)
				l.put(r, loggerv1.Action_ACTION_CREATE, key, t)
				return
			}
		}
		l.put(r, loggerv1.Action_ACTION_UPDATE, key, t)
	}
}

// truncate takes that a table was emptied: nothing that was done to its rows before counts any more.
func (l *latest) truncate(r *change.Relation, t *committed) {
	prefix := tableKey(r)
	for text, e := range l.entries {
		if strings.HasPrefix(text, prefix) {
			l.bytes -= e.size
			delete(l.entries, text)
		}
	}
	l.put(r, loggerv1.Action_ACTION_TRUNCATE, identity{text: prefix}, t)
}

func (l *latest) put(r *change.Relation, action loggerv1.Action, key identity, t *committed) {
	e := l.entries[key.text]
	if e == nil {
		e = &latestEntry{key: key.columns(), size: 2*len(key.text) + entryOverhead}
		l.entries[key.text] = e
		l.bytes += e.size
	}
	l.count++
	e.number, e.relation, e.action, e.transaction = l.count, r, action, t
}

// list returns what is held, in the order of the latest actions.
func (l *latest) list() []*loggerv1.Updated {
	entries := make([]*latestEntry, 0, len(l.entries))
	for _, e := range l.entries {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b *latestEntry) int { return cmp.Compare(a.number, b.number) })
	list := make([]*loggerv1.Updated, len(entries))
	for i, e := range entries {
		list[i] = &loggerv1.Updated{
			Schema: e.relation.Schema, Table: e.relation.Name, Action: e.action, Key: e.key,
			Lsn: uint64(e.transaction.end), CommitTime: timestamppb.New(e.transaction.time.Time()),
		}
	}
	return list
}

// identity is a table's key as one text, and its columns.
type identity struct {
	text  string
	names []string
	parts []keyPart
}

// keyPart is a column's value as far as it is shown.
type keyPart struct {
	null   bool
	value  string
	size   int
	digest string // when the value is cut
}

// tableKey begins the text of every key of a table.
func tableKey(r *change.Relation) string { return string(binary.BigEndian.AppendUint32(nil, r.OID)) }

// identify returns the key of a row: the columns of the replica identity, or all. A large value that was not logged is taken from
// the other row.
func identify(r *change.Relation, row, other block.Row) identity {
	whole := !slices.ContainsFunc(r.Columns, func(c change.Column) bool { return c.Key })
	text := []byte(tableKey(r))
	var id identity
	left := maxShownKey
	a, b := row.Columns(), other.Columns()
	for _, column := range r.Columns {
		kind, value := a.Next()
		if otherKind, otherValue := b.Next(); kind == block.ValueUnchanged && otherKind == block.ValueText {
			kind, value = otherKind, otherValue
		}
		if !column.Key && !whole {
			continue
		}
		part := keyPart{null: kind != block.ValueText, size: len(value)}
		if shown := min(len(value), maxShownValue, left); shown == len(value) {
			part.value = string(value)
		} else {
			part.value = string(value[:shown])
			sum := sha256.Sum256(value)
			part.digest = hex.EncodeToString(sum[:])
		}
		left -= len(part.value)
		text = append(text, kind)
		text = binary.AppendUvarint(text, uint64(len(value)))
		text = append(text, part.value...)
		text = append(text, part.digest...)
		id.names, id.parts = append(id.names, column.Name), append(id.parts, part)
	}
	id.text = string(text)
	return id
}

func (id identity) columns() []*loggerv1.KeyColumn {
	list := make([]*loggerv1.KeyColumn, len(id.parts))
	for i, p := range id.parts {
		list[i] = &loggerv1.KeyColumn{Name: id.names[i]}
		if !p.null {
			list[i].Value = proto.String(strings.ToValidUTF8(p.value, "\uFFFD"))
		}
		if p.digest != "" {
			list[i].CutBytes, list[i].CutDigest = int64(p.size), p.digest
		}
	}
	return list
}
