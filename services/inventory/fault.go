package inventory

// Fault points of this service, in the order in which a snapshot and a dump pass them.
const (
	FaultPositionTaken    = "inventory/position taken"    // before anything was made in PostgreSQL
	FaultSlotMade         = "inventory/slot made"         // its snapshot exists only in the walsender session
	FaultSnapshotImported = "inventory/snapshot imported" // the keeper has it, and it may not be read yet
	FaultSettled          = "inventory/settled"           // it may be read
	FaultExported         = "inventory/exported"          // others could import it
	FaultSlotDropped      = "inventory/slot dropped"
	FaultLogReached       = "inventory/log reached"
	FaultLeased           = "inventory/leased" // before the client hears of it

	FaultDumpImported = "inventory/dump imported"
	FaultDumpLocked   = "inventory/dump locked"
	FaultDumpCopied   = "inventory/dump copied" // all rows were sent, the end was not
)

// Faults lists all fault points of this service.
func Faults() []string {
	return []string{
		FaultPositionTaken, FaultSlotMade, FaultSnapshotImported, FaultSettled, FaultExported, FaultSlotDropped, FaultLogReached,
		FaultLeased, FaultDumpImported, FaultDumpLocked, FaultDumpCopied,
	}
}
