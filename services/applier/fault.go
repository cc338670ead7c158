package applier

// The places at which a test may kill the process, between any two durable steps of the first copy.
const (
	FaultPrepared       = "copy/prepared"        // tables are made and stored, no snapshot is open
	FaultSnapshotOpened = "copy/snapshot-opened" // the snapshot is open, nothing here says so
	FaultTableBegun     = "copy/table-begun"     // a table is emptied and belongs to a snapshot
	FaultChunkWritten   = "copy/chunk-written"   // a chunk's rows are in the open transaction
	FaultChunkDone      = "copy/chunk-done"      // they are committed
	FaultTableDone      = "copy/table-done"      // a table is wholly copied
	FaultBuilt          = "copy/built"           // indexes are built, the position is not stored
	FaultPositioned     = "copy/positioned"      // the first position is stored
	FaultCaughtUp       = "copy/caught-up"       // the replication is running
	FaultResyncAsked    = "control/resync-asked" // a copy of all tables is asked for, nothing is touched
	FaultUpdated        = "control/updated"      // a changed spec is stored, nothing runs with it yet
	FaultForced         = "control/forced"       // a position was forced, nothing follows from it yet
	FaultLeaving        = "jobs/leaving"         // nothing is applied at the end of a run or a turn, and that is not stored
	FaultLeft           = "jobs/left"            // it is stored, and the engine has not ended
	FaultRestMoved      = "jobs/rest-moved"      // it is stored how far those that rest have heard, and their sources are not told
	FaultRestEnded      = "jobs/rest-ended"      // a turn has begun after a rest, from where the log was heard
	FaultRunEnded       = "jobs/run-ended"       // a transient run has ended, and nothing says how
	FaultRunForgotten   = "jobs/run-forgotten"   // its result is stored and the rest is forgotten, and nobody is told
	FaultClaiming       = "schedule/claiming"    // a due run is begun in the open transaction
	FaultClaimed        = "schedule/claimed"     // that is committed, and nothing runs yet
	FaultMending        = "copy/mending"         // rows of a table that held some are about to be mended
	FaultNarrowed       = "sets/narrowed"        // rows that a changed set selects no longer are removed in the open transaction, of shared tables
	FaultLeftSet        = "sets/left"            // those of a table that has left the set are, too
)

// The places at which a test may kill the process during a repair.
const (
	FaultRepairStanding  = "repair/standing"  // applying stands still at a snapshot of the source, nothing is changed
	FaultRepairWritten   = "repair/written"   // a batch's rows are changed in the open transaction
	FaultRepairCommitted = "repair/committed" // it is committed, and applying still stands still
)
