package block

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/seed0419d559/syncline/internal/change"
)

// ErrReplay says that an event is not the one that a block holds in its place.
var ErrReplay = errors.New("a change differs from the one that is in the log in its place")

// Replay compares a transaction that is fed again with what a block holds of it. Its methods take the transaction's events that
// the block holds, in order. Records that were cut into fragments are taken as they come: whoever joins them checks their length.
type Replay struct {
	block   *Block
	reader  Reader
	record  Record
	scratch []byte
}

// NewReplay returns one that stands before the block's first event.
func NewReplay(b *Block) *Replay { return &Replay{block: b, reader: b.Reader()} }

// Change compares a row operation.
func (r *Replay) Change(m *Source) error {
	return r.event(KindChange, func(buf []byte) ([]byte, error) {
		index, ok := r.relation(m.Relation)
		z, err := m.size(index)
		if err != nil || !ok {
			return nil, err
		}
		return m.append(buf, &z), nil
	})
}

// Truncate compares a truncate of the tables.
func (r *Replay) Truncate(tables []change.RelationHash, cascade, restartIdentity bool) error {
	return r.event(KindTruncate, func(buf []byte) ([]byte, error) {
		m := Truncate{Relations: make([]uint32, len(tables)), Cascade: cascade, RestartIdentity: restartIdentity}
		for i := range tables {
			index, ok := r.relation(tables[i])
			if !ok {
				return nil, nil
			}
			m.Relations[i] = index
		}
		return m.append(buf), nil
	})
}

// Message compares a logical message.
func (r *Replay) Message(m Message) error {
	return r.event(KindMessage, func(buf []byte) ([]byte, error) {
		m.Prefix = validText(m.Prefix)
		return m.append(buf), nil
	})
}

func (r *Replay) relation(hash change.RelationHash) (uint32, bool) {
	i := slices.Index(r.block.Relations, hash)
	return uint32(max(i, 0)), i >= 0
}

// event compares the next event of the block with the content that encode appends; nothing stands for one that cannot be there.
func (r *Replay) event(kind Kind, encode func([]byte) ([]byte, error)) error {
	for {
		rest := r.reader.rest()
		ok, err := r.reader.Next(&r.record)
		switch {
		case err != nil:
			return fmt.Errorf("block %d: %w", r.block.Number, err)
		case !ok:
			return fmt.Errorf("%w: the log has none", ErrReplay)
		case r.record.Kind == KindFragment && r.record.Fragment.Last:
			return nil
		case !r.record.Kind.Event():
			continue
		}
		logged := rest[:len(rest)-len(r.reader.rest())]
		content, err := encode(r.scratch[:0])
		if err != nil {
			return err
		}
		r.scratch = content
		// What stands before the content is the kind and lengths.
		if same := r.record.Kind == kind && content != nil && len(logged) == sizedSize(sizedSize(len(content))); !same || !bytes.HasSuffix(logged, content) {
			return fmt.Errorf("%w: that is a %v", ErrReplay, r.record.Kind)
		}
		return nil
	}
}
