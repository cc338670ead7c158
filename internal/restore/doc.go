// Package restore loads a backup (internal/backup) into a database. Nothing of the database is touched before the whole backup and
// the database have been checked. A restore that is broken off at any moment can be run again and goes on where it was; what it
// leaves counts as restored only when every table has exactly the rows that the restore wrote, as many as the backup has, and then the
// database remembers, in the transaction that ends the restore, which position of which change log its tables stand at.
//
// It needs nothing but a connection to PostgreSQL 15 or newer.
package restore
