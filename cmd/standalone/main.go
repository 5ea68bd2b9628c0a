// Fleetcast-standalone runs what a fleet consists of on one machine: Kubernetes
// API servers, a broker, the hub and managed clusters.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	// Several of these processes share a machine, and do little once they are
	// started: memory is dearer than the time of the garbage collector.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
