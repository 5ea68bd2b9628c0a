package agent

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// thrift has the process keep little memory that it does not need, until ctx
// ends: an agent shares its cluster with what that is for, and is idle most of
// the time. Left to itself, the runtime keeps for minutes what a burst of works
// took. That costs about a quarter more CPU per work. GOGC, if set, counts instead
// of the percentage here.
func thrift(ctx context.Context) {
	const percent, interval, spare = 50, 10 * time.Second, 2 << 20
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if idleMemory() > spare {
				debug.FreeOSMemory()
			}
		}
	}
}

// idleMemory is how many bytes of the heap nothing was in after the last
// collection, and which the operating system does not have back.
func idleMemory() uint64 {
	const objects, free, live = "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes", "/gc/heap/live:bytes"
	samples := []metrics.Sample{{Name: objects}, {Name: free}, {Name: live}}
	metrics.Read(samples)
	held := samples[0].Value.Uint64() + samples[1].Value.Uint64()
	return held - min(held, samples[2].Value.Uint64())
}
