// Package backup writes a database into a directory and checks such a directory. A backup holds exactly the transactions up to
// the position that it names, of every table. It is whole or it is not there: a directory of the final name appears when every
// byte is on the disk, and whatever was damaged, swapped or cut off since is found before anything is restored from it.
//
// A backup is a directory:
//
//	manifest.json     what the backup is, and name, size and SHA-256 of every file
//	schema.json       the description of the database (internal/schema), with the sequences' values
//	data/00003.000.copy.zst
//	                  rows of the third table, the first range of its pages, as COPY text in a zstd frame;
//	                  without compression the name ends with .copy
//
// manifest.json is one object with two members: "manifest" is the manifest, and "sha256" the hash in hexadecimal of the manifest's
// JSON without the white space between its tokens.
//
// Rows are COPY text with the session settings of internal/postgres, which every version of PostgreSQL reads with the same meaning.
package backup
