// Package segment keeps numbered records in files: what Append has returned survives any crash, in the order of the numbers,
// each once. A record that was being appended when the machine stopped is there as a whole or not at all.
//
// A directory holds segments and the file "first":
//
//	00000000000000000001.seg   records 1, 2, 3, …
//	00000000000000000815.seg   records 815, …; only the last segment is written to
//	first                      number of the oldest record that counts, as text; 1 when the file is missing
//
// A segment is a sequence of records, and after the last one zeros or nothing:
//
//	 0  4  length of the data in bytes, big endian like all numbers; 0 ends the segment
//	 4  4  CRC-32C of the length, of bytes 8 to 24 and of the data
//	 8  8  number of the record
//	16  8  when it was appended, microseconds since 1970
//	24  …  data
//
// Small records are written over zeros that are in the file already, so making them durable changes the file's data alone and
// not the file system's own; that is cheaper, and disturbs others that sync less.
package segment
