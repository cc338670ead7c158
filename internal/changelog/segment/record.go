package segment

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

const headerBytes = 24

// MaxRecord is the largest number of bytes in a record's data.
const MaxRecord = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what stands before a record's data.
type header struct {
	length int
	crc    uint32
	number uint64
	at     time.Time
}

// appendRecord appends a record in its stored form.
func appendRecord(to []byte, number uint64, at time.Time, data []byte) []byte {
	from := len(to)
	to = binary.BigEndian.AppendUint32(to, uint32(len(data)))
	to = binary.BigEndian.AppendUint32(to, 0)
	to = binary.BigEndian.AppendUint64(to, number)
	to = binary.BigEndian.AppendUint64(to, uint64(at.UnixMicro()))
	to = append(to, data...)
	binary.BigEndian.PutUint32(to[from+4:], checksum(to[from:]))
	return to
}

// checksum returns the CRC of a record in its stored form.
func checksum(record []byte) uint32 {
	return crc32.Update(crc32.Checksum(record[:4], castagnoli), castagnoli, record[8:])
}

// parseHeader reads a header; false when no record begins there.
func parseHeader(b []byte) (header, bool) {
	if len(b) < headerBytes {
		return header{}, false
	}
	h := header{
		length: int(binary.BigEndian.Uint32(b)), crc: binary.BigEndian.Uint32(b[4:]), number: binary.BigEndian.Uint64(b[8:]),
		at: time.UnixMicro(int64(binary.BigEndian.Uint64(b[16:]))),
	}
	return h, h.length > 0 && h.length <= MaxRecord
}

// parseRecord reads the record with which b begins, and checks it.
func parseRecord(b []byte) (h header, data []byte, ok bool) {
	h, ok = parseHeader(b)
	if !ok || len(b) < headerBytes+h.length {
		return h, nil, false
	}
	record := b[:headerBytes+h.length]
	return h, record[headerBytes:], checksum(record) == h.crc
}
