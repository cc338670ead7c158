package main

import "slices"

// figures are what one run measured, by name; the names end with the unit. What is not measured is not there.
type figures map[string]float64

// The names of the figures.
const (
	seconds       = "seconds"              // what is compared, unless a trial says otherwise
	changes       = "changes"              // row changes of the load
	loadSeconds   = "load_seconds"         // how long the load took
	tailSeconds   = "logger_tail_seconds"  // how much longer the logger took than the load
	sourceCPU     = "source_cpu_seconds"   // CPU time of `syncline primary`, or of the walsender
	applierCPU    = "applier_cpu_seconds"  // CPU time of `syncline replica`, or of the apply worker
	primaryPeak   = "primary_peak_bytes"   // memory of `syncline primary`, or of the walsender
	replicaPeak   = "replica_peak_bytes"   // memory of `syncline replica`, or of the apply worker
	senderPeak    = "walsender_peak_bytes" // memory of Syncline's walsender
	walBytes      = "wal_bytes"            // WAL that the primary wrote during the load
	logBytes      = "log_bytes"            // by which the change log grew
	primaryCPU    = "primary_cpu_seconds"  // CPU time of everything on the primary's side
	loadCPU       = "load_cpu_seconds"     // CPU time of the sessions that wrote, which primary_cpu_seconds includes
	medianLatency = "median_seconds"       // from commit to visible
	p99Latency    = "p99_seconds"          // likewise
	loadRate      = "transactions_second"  // that the load reached
	sentBytes     = "wire_bytes"           // from the primary's side to the replica
	copyRows      = "rows"                 // of the first copy
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

// wire sets the bytes that a port sent to the peers since before; nil peers are all. A connection that ended on the way takes
// its count with it, and then the figure says less than was sent.
func (f figures) wire(port int, before map[int]float64, peers []int) error {
	after, err := sent(port)
	if err != nil {
		return err
	}
	for peer, bytes := range after {
		if peers == nil || slices.Contains(peers, peer) {
			f[sentBytes] += max(0, bytes-before[peer])
		}
	}
	return nil
}
