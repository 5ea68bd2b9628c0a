package agents_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
)

// TestFate: only what the agent itself was told to delete is known to be
// unwanted, whatever both ends agree on.
func TestFate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, stop := b.run(agents.Options{})
		want := func(reason, id string, held, deleted bool) {
			t.Helper()
			if h, d := a.Fate("hub1", id); h != held || d != deleted {
				t.Errorf("%s: work %s is held %v, deleted %v, want %v and %v", reason, id, h, d, held, deleted)
			}
		}
		b.settle(time.Second)
		h.hello()
		want("nobody said anything of it yet", "w", false, false)
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Hour)
		want("it is there", "w", true, false)
		want("both agree on all there is, and may both have forgotten it", "lost", false, false)
		h.want(gone("hub1", "w", 1), false)
		b.settle(time.Minute)
		want("its deletion is done", "w", false, true)
		stop()
		a, stop = b.run(agents.Options{})
		want("the disk remembers", "w", false, true)
		stop()
		b.store = &failing{} // The disk is lost.
		a, _ = b.run(agents.Options{})
		want("the disk is lost", "w", false, false)
		b.settle(time.Hour)
		want("the disk is lost, and both agree", "w", false, false)
	})
}
