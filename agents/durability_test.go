package agents_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

func TestNothingIsAcknowledgedBeforeItIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		full := errors.New("no space left on device")
		b.store.next = []error{full, full, full}
		b.run(agents.Options{})
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Hour)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})
		if r := b.last("w"); r.Generation != 1 {
			t.Errorf("report = %+v, want one on generation 1 after the disk has space again", r)
		}
	})
}

// TestCursorDoesNotPassWhatIsNotOnDisk: the agent stops while an event waits to
// be stored, after a later one was.
func TestCursorDoesNotPassWhatIsNotOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, broker: mem.NewBroker(mem.Options{Log: true, Redeliver: time.Hour}), cluster: newCluster(), store: &failing{}}
		b.source = b.listen("hub1")
		_, stop := b.run(agents.Options{})
		b.settle(time.Second)
		b.store.mu.Lock()
		b.store.next = []error{errors.New("no space left on device")}
		b.store.mu.Unlock()
		b.publish(work("hub1", "w1", 1, "one"), codec.Create)
		b.settle(10 * time.Millisecond)
		b.publish(work("hub1", "w2", 1, "two"), codec.Create)
		b.settle(10 * time.Millisecond)
		stop()
		b.run(agents.Options{})
		b.settle(time.Minute)
		wantHas(t, b.cluster, map[string]string{"hub1/w1": "one", "hub1/w2": "two"})
	})
}

// TestUnstorableReportIsNoStorm: the disk is full when the applier is done.
func TestUnstorableReportIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		block := make(chan struct{})
		b.cluster.block, b.cluster.blocked = block, make(chan struct{}, 100)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		<-b.cluster.blocked
		b.store.mu.Lock()
		for range 1000 {
			b.store.next = append(b.store.next, errors.New("no space left on device"))
		}
		b.store.mu.Unlock()
		close(block)
		b.settle(10 * time.Minute)
		if n := b.cluster.count("apply"); n > 40 {
			t.Errorf("the work was applied %d times in ten minutes", n)
		}
		b.store.mu.Lock()
		b.store.next = nil
		b.store.mu.Unlock()
		b.settle(10 * time.Minute)
		if b.last("w").Generation != 1 {
			t.Error("no report after the disk has space again")
		}
	})
}

// TestUnstorableWorkDelaysNoOther: what the store refuses together it takes one
// by one, but for what is to blame.
func TestUnstorableWorkDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.store.refuse = "bad"
		b.run(agents.Options{})
		b.settle(time.Second)
		b.publish(work("hub1", "bad", 1, "one"), codec.Create)
		for i := range 10 {
			b.publish(work("hub1", fmt.Sprint("w", i), 1, "one"), codec.Create)
		}
		b.settle(time.Minute)
		if got := len(b.cluster.has()); got != 10 {
			t.Errorf("%d works were applied, want the 10 that can be stored", got)
		}
	})
}
