// Package changelog is the durable log of committed transactions, in commit order, each once: what Durable and Read show
// survives any crash, and nothing else is ever shown. One writer appends, any number of readers follow, and a log never
// begins inside a transaction.
//
// The log is a sequence of blocks (package block), which stand in files as records of the same numbers (package segment). What
// the log is a log of and the relation versions are files beside them.
package changelog
