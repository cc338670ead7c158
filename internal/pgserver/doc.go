// Package pgserver runs real PostgreSQL servers of its own: it finds or installs the binaries, makes a cluster in a
// directory of its own, and starts, stops and kills it. A server never outlives the process that started it, and
// nothing outside its directory is touched. The package serves tests and the demonstration, not production data.
package pgserver
