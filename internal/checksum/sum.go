package checksum

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"
)

// HashBytes is the length of a row's hash and of a sum.
const HashBytes = 16

// Hash is the hash of a row.
type Hash [HashBytes]byte

// Sum is the checksum of a set of rows. Its zero value is that of none.
type Sum struct {
	Rows   int64
	hi, lo uint64
}

// Add adds the rows of another set.
func (s *Sum) Add(o Sum) {
	s.Rows += o.Rows
	s.add(o.hi, o.lo)
}

func (s *Sum) add(hi, lo uint64) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, hi, carry)
}

func (s *Sum) row(h Hash) {
	s.Rows++
	s.add(binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:]))
}

// Hash is the sum of the rows' hashes as bytes.
func (s Sum) Hash() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, HashBytes), s.hi), s.lo)
}

// ParseSum reads a sum from its parts; ok is false unless the hash has HashBytes bytes.
func ParseSum(rows int64, hash []byte) (s Sum, ok bool) {
	if len(hash) != HashBytes {
		return Sum{}, false
	}
	return Sum{rows, binary.BigEndian.Uint64(hash[:8]), binary.BigEndian.Uint64(hash[8:])}, true
}

// hasher hashes fields. It keeps its memory from row to row.
type hasher struct {
	state  hash.Hash
	buffer []byte // what was not written yet
	sum    [sha256.Size]byte
}

// largeField is the size from which a field is hashed where it lies instead of being collected with others.
const largeField = 16 << 10

func newHasher() *hasher { return &hasher{state: sha256.New()} }

// fields returns SHA-256 of some fields; nil is NULL. The result is good until the next call.
func (h *hasher) fields(values [][]byte) []byte {
	h.buffer = h.buffer[:0]
	large := false
	for _, v := range values {
		if v == nil {
			h.buffer = append(h.buffer, 0)
			continue
		}
		h.buffer = binary.AppendUvarint(h.buffer, uint64(len(v))+1)
		if len(v) < largeField && len(h.buffer) < largeField {
			h.buffer = append(h.buffer, v...)
			continue
		}
		if !large {
			h.state.Reset()
			large = true
		}
		h.state.Write(h.buffer)
		h.state.Write(v)
		h.buffer = h.buffer[:0]
	}
	if !large {
		h.sum = sha256.Sum256(h.buffer)
		return h.sum[:]
	}
	h.state.Write(h.buffer)
	return h.state.Sum(h.sum[:0])
}

func (h *hasher) row(values [][]byte) Hash { return Hash(h.fields(values)[:HashBytes]) }

func (h *hasher) digest(values [][]byte) uint64 { return binary.BigEndian.Uint64(h.fields(values)) }
