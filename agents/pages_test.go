package agents_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// TestEntriesComeInPages: what the broker takes at a time is less than what
// differs.
func TestEntriesComeInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 6000
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: limit})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		for i := range 400 {
			h.want(work("hub1", fmt.Sprint("w", i), 1, "one"), false)
		}
		b.settle(time.Minute)
		h.b.mu.Lock()
		clear(h.works) // A hub that knows nothing asks for everything.
		clear(h.statuses)
		h.b.mu.Unlock()
		h.forget()
		h.hello()
		b.settle(3 * time.Second)
		seen := map[string]int{}
		pages := h.heard().entries
		for _, p := range pages {
			for _, e := range p.Entries {
				seen[e.ID]++
				if e.Name != e.ID || e.Generation != 1 || e.Digest == (digest.Content{}) || e.Status == "" {
					t.Fatalf("entry = %+v, want all of the work", e)
				}
			}
		}
		if len(pages) < 10 || len(seen) != 400 {
			t.Errorf("%d works on %d pages, want 400 on many", len(seen), len(pages))
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("work %s is on %d pages", id, n)
			}
		}
		if len(b.cluster.has()) != 400 {
			t.Error("a source that knows nothing had works deleted")
		}
	})
}

// TestBucketOverTheLimitIsListed: the works of one bucket do not fit.
func TestBucketOverTheLimitIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 7000})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		for i, n := 0, 0; n < 100; i++ {
			if id := fmt.Sprint("w", i); digest.BucketOf(id) == 3 {
				h.want(work("hub1", id, 1, "one"), false)
				n++
			}
		}
		h.hello()
		b.settle(time.Minute)
		h.want(work("hub1", "elsewhere", 1, "one"), true)
		h.b.mu.Lock()
		for id := range h.works {
			h.statuses[id] = strings.Repeat("0", 64)
		}
		h.b.mu.Unlock()
		before := len(b.asked())
		h.forget()
		b.broker.Disconnect("c1-client") // Works that came before may have been listed.
		b.settle(time.Hour)
		if got := len(b.asked()) - before; got < 4 || got > 7 {
			t.Errorf("%d lists in an hour, want one in each ten minutes or so while the bucket differs", got)
		}
		if b.cluster.has()["hub1/elsewhere"] == "" {
			t.Error("a bucket that cannot be sent kept another from being compared")
		}
	})
}
