package restore

// The places at which a test may kill a restore, between any two durable steps.
const (
	FaultChecked    = "restore/checked"     // everything is checked, nothing is touched
	FaultPrepared   = "restore/prepared"    // Syncline's own tables are there
	FaultBegun      = "restore/begun"       // the tables are there and empty
	FaultFileLoaded = "restore/file-loaded" // a file's rows are in the open transaction
	FaultFileDone   = "restore/file-done"   // they are committed
	FaultBuilding   = "restore/building"    // a step after the load is about to be done
	FaultBuilt      = "restore/built"       // all of them are done, the restore is not complete
	FaultDone       = "restore/done"        // it is
)
