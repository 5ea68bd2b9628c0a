package agents_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// TestDecompressedWorksAreBounded: while the store takes its time, works that
// came compressed wait so, and all of them are stored in the end.
func TestDecompressedWorksAreBounded(t *testing.T) {
	heap := func() int {
		runtime.GC() // What pools hold is collected by the second.
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc >> 20)
	}
	synctest.Test(t, func(t *testing.T) {
		const versions = 24
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		b.store.slow(time.Hour)
		b.publish(work("hub1", "first", 1, "one"), codec.Create) // Its commit takes an hour.
		synctest.Wait()
		before := heap()
		for v := range versions {
			w := work("hub1", "w", int64(v+1), "one")
			w.Payload = fmt.Appendf(nil, `{"manifests":["%s"]}`, bytes.Repeat([]byte{byte('a' + v)}, 7<<20))
			small, _ := codec.NewCompressor().Compress(b.encode(w, codec.Create))
			b.publishEvent(small)
		}
		b.settle(time.Minute)
		if held := heap() - before; held > 70 {
			t.Errorf("%d MiB are held of %d works of 7 MiB that wait for the store", held, versions)
		}
		b.store.slow(0)
		b.settle(3 * time.Hour)
		if got := len(b.cluster.has()["hub1/w"]); got < 7<<20 || b.last("w").Generation != versions {
			t.Errorf("the cluster has %d bytes, and reported on generation %d, want %d", got, b.last("w").Generation, versions)
		}
	})
}
