// Package apply writes a change log's transactions to a target database. Each source transaction is applied exactly once
// and in commit order, because the position moves in the same target transaction as the rows; whatever breaks, the
// target holds exactly the transactions at or below its stored position.
//
// The parts, from pure to effectful:
//
//	target.go    what the target's catalog says about its tables
//	plan.go      how rows of a relation version map to a target table
//	statement.go the SQL of one row operation (pure)
//	slice.go     the row operations waiting to be written
//	write.go     writing a slice: COPY for runs of inserts, pipelined statements for the rest
//	engine.go    grouping source transactions into target transactions
//	session.go   the one target session that writes
package apply
