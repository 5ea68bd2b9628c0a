package agents_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// TestClockThatJumpsForgetsNoDeletion: the clock is 60 days ahead for some
// hours, as when a board without a battery has read nonsense.
func TestClockThatJumpsForgetsNoDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var ahead atomic.Int64
		b.run(agents.Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		b.settle(time.Second)
		created := b.encode(work("hub1", unique, 1, "one"), codec.Create)
		b.publishEvent(created)
		b.settle(time.Second)
		b.publish(gone("hub1", unique, 2), codec.Delete)
		b.settle(time.Minute)
		wantHas(t, b.cluster, nil)

		ahead.Store(int64(60 * 24 * time.Hour))
		b.settle(20 * time.Hour)
		b.publishEvent(created) // A late copy.
		b.settle(time.Minute)
		wantHas(t, b.cluster, nil)
		ahead.Store(0)
		b.settle(40 * time.Hour)
		if n := b.tombstones(); n != 1 {
			t.Errorf("%d tombstones two days after the clock was set right, want the one", n)
		}
	})
}

// TestTombstonesAge: a deletion is forgotten some time after its age, which
// counts from when it was done.
func TestTombstonesAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{TombstoneAge: 100 * time.Hour})
		b.settle(time.Second)
		b.publish(work("hub1", unique, 1, "one"), codec.Create)
		b.settle(time.Second)
		b.publish(gone("hub1", unique, 2), codec.Delete)
		b.settle(99 * time.Hour)
		if n := b.tombstones(); n != 1 {
			t.Errorf("%d tombstones before their age, want the one", n)
		}
		b.settle(30 * time.Hour)
		if n := b.tombstones(); n != 0 {
			t.Errorf("%d tombstones more than a day after their age, want none", n)
		}
	})
}

// unique is an ID that no other work will ever have.
const unique = "0b8a2f0e-5d55-4a7e-9c55-2f1f2a8f6f10"

func (b *bench) tombstones() int {
	b.t.Helper()
	s, err := b.store.Load()
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	for _, r := range s.Works {
		if r.Gone() {
			n++
		}
	}
	return n
}
