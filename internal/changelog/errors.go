package changelog

import "errors"

var (
	// ErrClosed says that the log or the appender was closed meanwhile.
	ErrClosed = errors.New("change log is closed")

	// ErrLocked says that another process has the directory open. One directory serves one logger.
	ErrLocked = errors.New("change log directory is in use by another process (stop it, or give each logger its own directory)")

	// ErrNoLog says that the directory holds no log yet: Reset begins one.
	ErrNoLog = errors.New("change log has not been begun")

	// ErrFenced says that another writer has appended meanwhile, or that the log was begun anew. What was appended since
	// Durable is not in the log; opening the appender again reads the tail and continues.
	ErrFenced = errors.New("another writer has appended to the change log")

	// ErrStore says that the store did not take a block: the disk is full or failing. Opening the appender again restarts the
	// store and continues after what is durable.
	ErrStore = errors.New("change log cannot be written")

	// ErrDiverged says that the primary sent a transaction again that is not the one in the log: its history is another one.
	// The log cannot be continued; a new one has to be begun.
	ErrDiverged = errors.New("history of the primary diverges from the change log")

	// ErrOrder says that something was appended where it may not stand, such as a change outside a transaction.
	ErrOrder = errors.New("appended out of order")

	// ErrOtherLog says that a position belongs to another incarnation of the log: it means nothing in this one.
	ErrOtherLog = errors.New("position of another change log")

	// ErrTooOld says that transactions after a position have been purged: following from it would miss them.
	ErrTooOld = errors.New("position is before the start of the change log")

	// ErrAhead says that a position lies after the end of the log.
	ErrAhead = errors.New("position is after the end of the change log")

	// ErrPurged says that a block is no longer in the log.
	ErrPurged = errors.New("block was purged from the change log")

	// ErrCorrupt says that a stored block or relation is missing or not what was written. The log has to be begun anew.
	ErrCorrupt = errors.New("change log is corrupt")

	// ErrUnknownRelation says that no relation version with that hash was ever put.
	ErrUnknownRelation = errors.New("relation is not in the change log")
)
