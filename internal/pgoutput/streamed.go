package pgoutput

import "fmt"

// FrameKind says what a [Frame] does to the transactions that are sent before they end.
type FrameKind byte

// The kinds of frame. The zero FrameKind is none.
const (
	// FrameStart opens a piece of one transaction: every message up to the next FrameStop belongs to it.
	FrameStart FrameKind = iota + 1
	// FrameStop closes the piece. Whole transactions, or a piece of another one, may follow.
	FrameStop
	// FrameCommit says that the transaction has committed. It comes where the transaction stands in the order of commits.
	FrameCommit
	// FrameAbort says that the transaction, or one of its subtransactions, was rolled back.
	FrameAbort
)

// Frame is what protocol version 2 adds with streaming = on: a transaction that is larger than logical_decoding_work_mem is sent in
// pieces while it runs.
//
//	Start  'S' xid:4 first:1                                     first is 1 in a transaction's first piece
//	Stop   'E'
//	Commit 'c' xid:4 flags:1 (0) commitLSN endLSN commitTime
//	Abort  'A' xid:4 subxid:4 [lsn time]                         subxid is xid for the whole transaction
//
// Between Start and Stop, every message but Origin has the xid of its subtransaction, 4 bytes, behind its letter: see [Unstream].
type Frame struct {
	Kind FrameKind
	XID  uint32 // of the transaction; 0 of FrameStop
	// SubXID is, of FrameAbort, what was rolled back: XID for the whole transaction.
	SubXID uint32
	First  bool   // of FrameStart
	Commit Commit // of FrameCommit
}

// DecodeFrame decodes a message that is a frame; ok is false for any other, which Decode takes. The error is ErrMalformed.
func DecodeFrame(data []byte) (f Frame, ok bool, err error) {
	if len(data) == 0 {
		return Frame{}, false, nil
	}
	r := reader{buf: data, off: 1}
	switch data[0] {
	case 'S':
		f = Frame{Kind: FrameStart, XID: r.uint32(), First: r.flags(1) != 0}
	case 'E':
		f = Frame{Kind: FrameStop}
	case 'c':
		f = Frame{Kind: FrameCommit, XID: r.uint32(), Commit: Commit{Flags: r.flags(0), CommitLSN: r.lsn(), EndLSN: r.lsn(), CommitTime: r.time()}}
	case 'A':
		const parallel = 8 + 8 // an LSN and a time, from protocol 4 on
		f = Frame{Kind: FrameAbort, XID: r.uint32(), SubXID: r.uint32()}
		if r.left() == parallel {
			r.take(parallel)
		}
	default:
		return Frame{}, false, nil
	}
	if r.end(); r.err != nil {
		return Frame{}, true, fmt.Errorf("decode frame %q: %w", data[0], r.err)
	}
	return f, true, nil
}

// Unstream appends to b the message that Decode takes for one that came between FrameStart and FrameStop. The error is ErrMalformed.
func Unstream(b, data []byte) ([]byte, error) {
	const head = 1 + 4
	switch {
	case len(data) > 0 && data[0] == 'O':
		return append(b, data...), nil
	case len(data) < head:
		return b, fmt.Errorf("decode message in a stream: %w: it has %d bytes", ErrMalformed, len(data))
	}
	return append(append(b, data[0]), data[head:]...), nil
}
