package agents_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// remembers has the hub say from now on that it took this sequence.
func (h *hub) remembers(taken codec.Sequence) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.taken = taken
}

// drops has the hub take no report up to this sequence.
func (h *hub) drops(stale codec.Sequence) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.stale = stale
}

// TestReportsGoOnFromWhatTheSourceTook: an agent without memory and with its
// clock set back learns from its source where its reports go on. What one source
// says moves no other's, and what no clock can have made is not believed.
func TestReportsGoOnFromWhatTheSourceTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := codec.Sequence(0).Next(time.Now().AddDate(40, 0, 0))
		b := newBench(t)
		h := b.newHub("hub1")
		b.listen("hub2")
		options := agents.Options{Sources: []string{"hub1", "hub2"}}
		_, stop := b.run(options)
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		before := b.last("w").Sequence
		if before >= taken {
			t.Fatalf("sequence %d, want one of the agent's own clock, below %d", before, taken)
		}
		h.remembers(taken)
		h.hello()
		b.settle(time.Minute)
		h.want(work("hub1", "w", 2, "two"), false)
		b.settle(time.Minute)
		raised := b.last("w").Sequence
		if raised <= taken {
			t.Errorf("after the source told of %d, sequence %d, want a greater one", taken, raised)
		}
		b.publish(work("hub2", "x", 1, "one"), codec.Create)
		b.settle(time.Minute)
		if got := b.last("x").Sequence; got <= before || got >= taken {
			t.Errorf("sequence %d to the other source, want one that goes on from %d", got, before)
		}
		stop()

		_, stop = b.run(options)
		h.remembers(math.MaxInt64)
		h.hello()
		b.settle(time.Minute)
		h.want(work("hub1", "w", 3, "three"), false)
		b.settle(time.Minute)
		again := b.last("w").Sequence
		if again <= raised || again > raised+1000 {
			t.Errorf("sequence %d after a restart and an impossible one, want the next after %d", again, raised)
		}
		if peer := b.peer("hub1"); peer.Sequence != again || peer.Epoch != "e1" {
			t.Errorf("kept of the source: %+v, want the last sequence, %d", peer, again)
		}
		stop()
	})
}

// TestStatusIsSignedAnew: the source dropped a report as stale. Once it told why,
// it is told again, above what it took.
func TestStatusIsSignedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		taken := codec.Sequence(0).Next(time.Now().AddDate(40, 0, 0))
		h.remembers(taken)
		h.drops(taken)
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		if got := b.last("w").Sequence; got <= taken || !a.InSync("hub1") {
			t.Errorf("in sync %v after sequence %d, want one above %d", a.InSync("hub1"), got, taken)
		}
	})
}
