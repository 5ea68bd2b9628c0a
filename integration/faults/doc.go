// Package faults proves what this project promises while things break: real
// programs, API servers and brokers as processes, and a network between them
// that can be cut, slowed, frozen and forgotten.
//
// A case is a few lines: it says what shall be on the clusters and what breaks
// meanwhile. When the faults are over, the clock starts, and everything must
// come to be as the hub wants it, and be known to be so, within the case's
// bound. Whatever is written to an API server is recorded as it happens, and at
// the end of every case validators hold the record against the promises:
//
//	V1  what a cluster has of a work never goes back to an older version
//	V2  in the end clusters have what the hub wants, and the hub knows it
//	V3  nothing leaves a cluster unless somebody asked for it before
//	V4  a work leaves the hub only when its cluster has nothing of it any more
//	V5  no cluster has anything of another cluster's
//	V6  every event received is counted under a result, none of them as
//	    damaged or as somebody else's
//	V7  goroutines and memory are in the end about what they were at first
//	V8  the time to converge is within the bound
//
// The smoke test runs some cases over the brokers that fleetcast-standalone
// brings along, with generous bounds. The build tag faults adds the matrix: all
// cases over mosquitto and nats-server. docs/reliability.md has its results and
// says how to run one case again. The model tests of this package run both ends
// in this process, under simulated time, through many more schedules.
package faults
