package backup

// The places at which a test may kill a dump, between any two durable steps.
const (
	FaultSnapshotOpened  = "backup/snapshot-opened"  // the snapshot is open, nothing is written
	FaultFileWritten     = "backup/file-written"     // a file of rows is whole
	FaultManifestWritten = "backup/manifest-written" // everything is whole, under the name of a partial backup
	FaultRenamed         = "backup/renamed"          // the backup has its name
)
