// Package checksum reduces the rows of a table to numbers that are equal on two servers when the rows are. A hash depends on the
// text of the values alone: not on the version of PostgreSQL, the order of columns, or where rows lie. It is for sessions of
// internal/postgres, whose settings fix that text.
//
// A row is encoded as its fields, those of the key first and the others in the order of their names:
//
//	NULL     0x00
//	a value  length + 1 as uvarint · the bytes of its text in UTF-8
//
// so that no two rows have the same encoding. Its hash is the first 16 bytes of SHA-256 of that, read with the highest byte
// first; the checksum of a set of rows is their number and the sum of their hashes modulo 2^128. Sums of parts can be added, so
// a partitioned table equals the sum of its partitions, and a row that is there twice counts twice.
//
// The rows are cut into ranges in one of two ways. By the key's own order where every server sorts its types alike: then an
// index leads into a range. Otherwise by a digest of the key, which is the first 8 bytes of SHA-256 of its fields encoded as
// above: nothing has to be sorted, and nothing need be known of the key's order or collation, but each reading is of the whole
// table. A table without a key is cut by the digest of whole rows. Only types whose text is the same everywhere are the same
// everywhere: two numbers that are equal and print differently, 1.0 and 1.00, are different here.
package checksum
