// Package block is the format in which the change log stores and serves committed transactions: it builds blocks, reads
// them, and joins them again. A block is read exactly as it was built or refused with an error; no length in it is
// trusted, and reading a record or a column allocates nothing. The package does no I/O.
//
// A block is a serialized syncline.change.v1.Block, written and read by hand, so that any gRPC client can read it with
// generated code while the hot path neither decodes nor encodes it again. Its bytes are canonical: fields ascend, a zero
// stands for nothing and is left out, and a varint has no needless byte. 8 and 4 byte integers are little endian.
//
//	08 number:varint                 ascends by one; the sequence number of the message in the store
//	12 10 logID:16                   incarnation of the log
//	19 previous:8                    through of the block before; left out (0) in the first block of a log
//	21 through:8                     all transactions that end at or below are in the log once this block is
//	29 lastCommitTime:8              only if a transaction ends in this block
//	30 transactions:varint           number of transactions that end in this block
//	3a size:varint part              only in blocks of a transaction that is larger than a block
//	42 10 relation:16                for each relation version used; a change names it by its index in this list
//	4a size:varint record            for each record
//	7d crc:4                         CRC-32C (Castagnoli) of all bytes before this field
//
//	part:   08 firstBlock:varint 10 eventsBefore:varint 18 xid:varint 21 commitLSN:8 28 last:01
//
//	record: 0a begin    09 commitLSN:8 11 commitTime:8 18 xid:varint
//	        12 commit   09 commitLSN:8 11 endLSN:8 19 commitTime:8 20 xid:varint
//	        1a change   08 operation:varint 10 relation:varint 18 oldIsKey:01 22 size row (old) 2a size row (new)
//	        22 truncate 0a size relation:varint… 10 cascade:01 18 restartIdentity:01
//	        2a message  0a size prefix 12 size content 19 lsn:8
//	        32 origin   0a size serverID 12 size (0a 20 logID 10 lsn:varint) 19 commitTime:8 22 size name
//	        3a fragment 0a size data 10 last:01 18 totalBytes:varint
//
//	row:    0a size kinds ('t' value, 'n' null, 'u' unchanged) and for each 't', in order: 12 size value
//
// A block holds either whole transactions, or a part of one large transaction, or no record at all (a mark). A record
// larger than [MaxRecord] is cut into fragments that follow one another in part blocks with no other record between them;
// a relation index in it means the same in the list of each block that holds a piece.
package block
