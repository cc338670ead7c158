// Package changelog is the durable log of committed transactions, in commit order, each once: what Durable and Read show
// survives any crash, and nothing else is ever shown. One writer appends, any number of readers follow, and a log never
// begins inside a transaction.
//
// The log is a stream of blocks (package block) in NATS JetStream, which runs inside the process without a listener and
// writes through to the disk before it acknowledges. A block's number is its sequence number in the stream. Relation
// versions and what the log is a log of stand in a second stream.
package changelog
