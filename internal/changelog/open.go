package changelog

import (
	"context"
	"fmt"
	"hash/crc32"

	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// openTail is the large transaction inside which a log ends.
type openTail struct {
	block.Open
	origins int // origin records after the last event
	// The last events in the log, from the one numbered compared on (the first is 0), are compared with what is fed in their places.
	compared uint64
	replay   *block.Replay
}

// readOpen returns what is in the log of the transaction inside which it ends, nil if it ends between two.
func (l *Log) readOpen(ctx context.Context, last *block.Header) (*openTail, error) {
	if !last.Open() {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	first, err := l.Read(ctx, last.Part.FirstBlock)
	if err != nil {
		return nil, err
	}
	var rec block.Record
	r := first.Reader()
	if ok, err := r.Next(&rec); err != nil || !ok || rec.Kind != block.KindBegin {
		return nil, fmt.Errorf("%w: block %d does not begin a transaction: %w", ErrCorrupt, first.Number, err)
	}
	o := &openTail{Open: block.Open{Begin: rec.Begin, FirstBlock: first.Number}}
	landmark, err := l.lastLandmark(ctx, last)
	for number := landmark; err == nil && number <= last.Number; number++ {
		var b *block.Block
		if b, err = l.Read(ctx, number); err != nil {
			break
		}
		if number == landmark {
			o.compared, o.replay = b.Part.EventsBefore, block.NewReplay(b)
		}
		err = o.add(b)
	}
	return o, err
}

// lastLandmark returns the last block of the open transaction from which on events, origins and the pieces of an unfinished
// record can be counted: it holds an event, or the beginning of the transaction or of a record that was cut.
func (l *Log) lastLandmark(ctx context.Context, last *block.Header) (uint64, error) {
	for number := last.Number; number > last.Part.FirstBlock; number-- {
		b, err := l.Read(ctx, number)
		if err != nil {
			return 0, err
		}
		var rec block.Record
		r := b.Reader()
		for {
			ok, err := r.Next(&rec)
			if err != nil {
				return 0, err
			}
			if !ok {
				break
			}
			if rec.Kind.Event() || rec.Kind == block.KindFragment && (rec.Fragment.Last || rec.Fragment.TotalBytes > 0) {
				return number, nil
			}
		}
	}
	return last.Part.FirstBlock, nil
}

// add counts what a block holds of the open transaction.
func (o *openTail) add(b *block.Block) error {
	o.Events = b.Part.EventsBefore
	var rec block.Record
	r := b.Reader()
	for {
		ok, err := r.Next(&rec)
		if err != nil || !ok {
			return err
		}
		switch {
		case rec.Kind.Event():
			o.Events++
			o.origins = 0
		case rec.Kind == block.KindOrigin:
			o.origins++
		case rec.Kind == block.KindFragment && rec.Fragment.Last:
			o.Events++
			o.origins, o.Piece = 0, block.Partial{}
		case rec.Kind == block.KindFragment:
			p := &o.Piece
			if rec.Fragment.TotalBytes > 0 {
				*p = block.Partial{Total: rec.Fragment.TotalBytes}
			}
			p.Bytes += uint64(len(rec.Fragment.Data))
			p.CRC = crc32.Update(p.CRC, castagnoli, rec.Fragment.Data)
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
