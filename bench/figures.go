package main

// figures are what one run measured, by name; the names end with the unit. What is not measured is not there.
type figures map[string]float64

// The names of the figures.
const (
	seconds       = "seconds"             // what is compared, unless a trial says otherwise
	changes       = "changes"             // row changes of the load
	loadSeconds   = "load_seconds"        // how long the load took
	tailSeconds   = "logger_tail_seconds" // how much longer the logger took than the load
	loggerCPU     = "logger_cpu_seconds"  // CPU time of `syncline primary`
	applierCPU    = "applier_cpu_seconds" // CPU time of `syncline replica`
	primaryPeak   = "primary_peak_bytes"  // memory of `syncline primary`, or of the walsender
	replicaPeak   = "replica_peak_bytes"  // memory of `syncline replica`, or of the apply worker
	walBytes      = "wal_bytes"           // WAL that the primary wrote during the load
	logBytes      = "log_bytes"           // by which the change log grew
	primaryCPU    = "primary_cpu_seconds" // CPU time of everything on the primary's side
	loadCPU       = "load_cpu_seconds"    // CPU time of the sessions that wrote, which primary_cpu_seconds includes
	medianLatency = "median_seconds"      // from commit to visible
	p99Latency    = "p99_seconds"         // likewise
	loadRate      = "transactions_second" // that the load reached
	sentBytes     = "wire_bytes"          // from the primary's side to the replica
	copyRows      = "rows"                // of the first copy
)

// peak sets a process's peak of memory; a process that is not there has none.
func (f figures) peak(name string, pid int) {
	if pid == 0 {
		return
	}
	if bytes, err := peakMemory(pid); err == nil {
		f[name] = max(f[name], bytes)
	}
}
