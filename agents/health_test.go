package agents_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// TestFullDiskIsSaid: while the store refuses, the agent says so, and no longer.
func TestFullDiskIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		if err := a.Healthy(); err != nil {
			t.Fatalf("Healthy before anything was written = %v", err)
		}
		b.store.fail(1_000_000)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Minute)
		if err := a.Healthy(); err == nil {
			t.Error("Healthy with a store that refuses writes")
		}
		wantHas(t, b.cluster, nil)
		b.store.fail(0)
		b.settle(30 * time.Second)
		if err := a.Healthy(); err != nil {
			t.Errorf("Healthy half a minute after the disk has space again = %v", err)
		}
		b.settle(time.Minute)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})
	})
}

// TestFaultEndsWithoutEvents: nothing is to be written any more, and the store
// is tried all the same.
func TestFaultEndsWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		a, _ := b.run(agents.Options{StatusInterval: 24 * time.Hour, ApplyInterval: 24 * time.Hour})
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(10 * time.Millisecond)
		b.store.fail(1) // Of noting that the report was sent.
		b.settle(2 * time.Second)
		if err := a.Healthy(); err == nil {
			t.Fatal("Healthy after a write was refused")
		}
		b.settle(20 * time.Second)
		if err := a.Healthy(); err != nil {
			t.Errorf("Healthy = %v, though the store takes writes", err)
		}
	})
}

// TestSequencesGrowOverEverything: restarts, clocks that step back, and a
// sequence that is issued again and again.
func TestSequencesGrowOverEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		step := time.Duration(0)
		now := func() time.Time { return time.Now().Add(step) }
		generation := int64(0)
		for _, step = range []time.Duration{0, -10 * 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour, -time.Hour, -60 * 365 * 24 * time.Hour} {
			_, stop := b.run(agents.Options{Now: now})
			b.settle(time.Second)
			for range 3 {
				generation++
				b.publish(work("hub1", "w", generation, "content"), codec.Update)
				b.settle(time.Second)
			}
			stop()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.reports) != 15 {
			t.Fatalf("%d reports, want one on each of 15 versions", len(b.reports))
		}
		for i, r := range b.reports {
			if i > 0 && (r.Sequence <= b.reports[i-1].Sequence || r.Generation <= b.reports[i-1].Generation) {
				t.Errorf("report %d has generation %d and sequence %d, after %d and %d",
					i, r.Generation, r.Sequence, b.reports[i-1].Generation, b.reports[i-1].Sequence)
			}
		}
	})
}
