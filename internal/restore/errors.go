package restore

import "errors"

// Reasons to refuse. Each comes before anything is touched, except ErrRows.
var (
	// ErrNotEmpty says that tables of the backup hold rows in the database.
	ErrNotEmpty = errors.New("tables already hold rows")
	// ErrInUse says that another restore runs in the database.
	ErrInUse = errors.New("another restore runs in this database")
	// ErrUnfinished says that the restore of another backup was broken off.
	ErrUnfinished = errors.New("the restore of another backup broke off here")
	// ErrReplicated says that a replication writes tables of the backup.
	ErrReplicated = errors.New("tables are written by a replication")
	// ErrPrivilege says that the role lacks privileges; the text has the statements that give them.
	ErrPrivilege = errors.New("privileges are missing")
	// ErrStandby says that the server takes no writes.
	ErrStandby = errors.New("the server is a standby")
	// ErrVersion says that the server is older than Syncline knows.
	ErrVersion = errors.New("the server is too old")
	// ErrRows says that a table has not the rows of the backup at the end: something else wrote to it meanwhile.
	ErrRows = errors.New("a table has other rows than the backup")
)
