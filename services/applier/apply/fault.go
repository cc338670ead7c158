package apply

// The places at which a test may kill the process, between any two durable steps of applying.
const (
	FaultSliceWritten  = "apply/slice-written"   // changes are in the open target transaction
	FaultSetWiseFailed = "apply/set-wise-failed" // a slice was rolled back and is not yet replayed row by row
	FaultBeforeCommit  = "apply/before-commit"   // the position stands in the transaction, which is not committed
	FaultAfterCommit   = "apply/after-commit"    // it is committed, nobody was told
	FaultSetAside      = "apply/set-aside"       // a change stands in quarantine in the open transaction
)

// The places at which a test may kill the process while changes in quarantine are applied or discarded.
const (
	FaultRetryWritten   = "quarantine/written"   // they are applied, and gone from the quarantine, in the open transaction
	FaultRetryCommitted = "quarantine/committed" // it is committed, and the engine still holds their keys
)
