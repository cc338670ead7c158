// Package apply writes a change log's transactions to a target database. Each source transaction is applied exactly once
// and in commit order, because the position moves in the same target transaction as the rows; whatever breaks, the
// target holds exactly the transactions at or below its stored position.
//
// The parts, from pure to effectful:
//
//	target.go    what the target's catalog says about its tables
//	look.go      noticing that they were altered
//	plan.go      how rows of a relation version map to a target table
//	statement.go the SQL of one row operation (pure)
//	slice.go     the row operations waiting to be written
//	net.go       their net effect on each row (pure)
//	set.go       the SQL of many row operations at once (pure)
//	dense.go     those on neighbouring keys (pure)
//	plans.go     what the server's planner may do with all of them
//	engine.go    grouping source transactions into target transactions
//	hold.go      standing still at a position, for those who compare
//	write.go     writing a slice: set-wise, or row by row
//	executor.go  running what the engine has prepared, and moving the position
//	session.go   the one target session that writes
package apply
