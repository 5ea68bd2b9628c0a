package agents_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

func TestWorkIsAppliedReportedAndDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)

		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Second)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})
		first := b.last("w")
		if first.Generation != 1 || first.Agent != "c1-work-agent" || first.Sequence == 0 {
			t.Errorf("report = %+v, want one on generation 1 by c1-work-agent with a sequence", first)
		}

		b.publish(work("hub1", "w", 2, "two"), codec.Update)
		late := b.encode(work("hub1", "w", 2, "two"), codec.Update)
		b.publish(work("hub1", "w", 1, "one"), codec.Update) // Out of order.
		b.settle(time.Second)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "two"})
		if second := b.last("w"); second.Generation != 2 || second.Sequence <= first.Sequence {
			t.Errorf("report = generation %d sequence %d, want generation 2 after sequence %d", second.Generation, second.Sequence, first.Sequence)
		}

		b.publish(gone("hub1", "w", 3), codec.Delete)
		b.settle(time.Second)
		wantHas(t, b.cluster, nil)
		if deleted, err := b.last("w").Deleted(); err != nil || !deleted {
			t.Errorf("last report's Deleted = %v, %v, want true", deleted, err)
		}

		before := b.sent()
		b.publishEvent(late)
		b.settle(time.Minute)
		wantHas(t, b.cluster, nil)
		if b.sent() != before {
			t.Error("a late copy of a deleted work made the agent report")
		}
		b.publish(gone("hub1", "w", 3), codec.Delete) // The source missed the confirmation.
		b.settle(time.Second)
		if b.sent() != before+1 {
			t.Errorf("%d reports after the deletion was asked for again, want one more", b.sent()-before)
		}
	})
}

func TestDeletionOfUnknownWorkIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		b.publish(gone("hub1", "never-seen", 5), codec.Delete)
		b.settle(time.Second)
		r := b.last("never-seen")
		if deleted, err := r.Deleted(); err != nil || !deleted || r.Generation != 5 {
			t.Errorf("report = generation %d, Deleted %v, %v; want a confirmation for generation 5", r.Generation, deleted, err)
		}
	})
}

func TestAgentGoesOnWithoutBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		_, stop := b.run(agents.Options{})
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Second)
		stop()

		b.broker.Stop()
		b.cluster.applied["hub1/w"] = "drifted"
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})

		b.cluster.mu.Lock()
		b.cluster.applied["hub1/w"] = "drifted again"
		b.cluster.mu.Unlock()
		a.Changed("hub1", "w")
		b.settle(12 * time.Hour)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})
		if a.Listening() {
			t.Error("Listening without a broker")
		}
		b.broker.Start()
		b.settle(time.Hour)
		if !a.Listening() {
			t.Error("not Listening an hour after the broker is back")
		}
	})
}

func TestNewestReportIsSentWhenTheBrokerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cluster.next = []error{errors.New("not yet")}
		b.run(agents.Options{})
		b.settle(time.Second)
		b.cluster.block, b.cluster.blocked = make(chan struct{}), make(chan struct{}, 10)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		<-b.cluster.blocked
		b.broker.Stop()
		close(b.cluster.block)
		b.settle(time.Minute) // Applied=False, then True, with nobody to tell.
		if got := b.sent(); got != 0 {
			t.Fatalf("%d reports without a broker", got)
		}
		b.broker.Start()
		b.settle(time.Hour)
		r := b.last("w")
		s, err := r.Status()
		if err != nil || len(s.Conditions) != 1 || s.Conditions[0].Status != metav1.ConditionTrue {
			t.Errorf("last report = %+v, %v, want Applied True", s, err)
		}
		if got := b.sent(); got != 1 {
			t.Errorf("%d reports were sent, want the newest only", got)
		}
	})
}

// TestStatusCannotUndoDeletion is the race that left deleted works running: an
// application ends after the deletion came.
func TestStatusCannotUndoDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		b.cluster.block, b.cluster.blocked = make(chan struct{}), make(chan struct{}, 1)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		<-b.cluster.blocked
		b.publish(gone("hub1", "w", 2), codec.Delete)
		b.settle(time.Second)
		close(b.cluster.block)
		b.settle(time.Hour)
		wantHas(t, b.cluster, nil)
		if deleted, err := b.last("w").Deleted(); err != nil || !deleted {
			t.Errorf("last report's Deleted = %v, %v, want true", deleted, err)
		}
	})
}

func TestFailuresAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		b.cluster.next = []error{errors.New("a"), errors.New("b"), errors.New("c")}
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Hour)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})
		b.cluster.mu.Lock()
		b.cluster.next = []error{errors.New("finalizers"), errors.New("finalizers")}
		b.cluster.mu.Unlock()
		b.publish(gone("hub1", "w", 2), codec.Delete)
		b.settle(time.Hour)
		wantHas(t, b.cluster, nil)
		if got := b.cluster.count("delete"); got != 3 {
			t.Errorf("Delete was called %d times, want 3", got)
		}
	})
}

func TestPanicCostsOneWorkItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cluster.panicsOn = `{"manifests":[{"content":"poison"}]}`
		b.run(agents.Options{Workers: 1})
		b.settle(time.Second)
		b.publish(work("hub1", "bad", 1, "poison"), codec.Create)
		b.publish(work("hub1", "good", 1, "one"), codec.Create)
		b.settle(time.Minute)
		wantHas(t, b.cluster, map[string]string{"hub1/good": "one"})
	})
}

func TestConformanceApply_Workers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cluster.block, b.cluster.blocked = make(chan struct{}), make(chan struct{}, 10)
		b.run(agents.Options{Workers: 3})
		b.settle(time.Second)
		for _, id := range []string{"v", "w", "x", "y", "z"} {
			b.publish(work("hub1", id, 1, "one"), codec.Create)
		}
		b.settle(time.Second)
		if got := len(b.cluster.blocked); got != 3 {
			t.Errorf("%d works are applied at the same time, want 3", got)
		}
		close(b.cluster.block)
		b.settle(time.Second)
		if got := len(b.cluster.blocked); got != 5 {
			t.Errorf("%d works were applied, want 5", got)
		}
	})
}

func TestWorksAreLookedAtInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{StatusInterval: time.Minute, ApplyInterval: 24 * time.Hour})
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Hour)
		if got := b.cluster.count("observe"); got < 30 || got > 60 {
			t.Errorf("Observe was called %d times in an hour, want once per one to two minutes", got)
		}
		if applies, sent := b.cluster.count("apply"), b.sent(); applies != 1 || sent != 1 {
			t.Errorf("%d applications and %d reports of a work that did not change, want 1 and 1", applies, sent)
		}
	})
}

func TestNewNeedsNames(t *testing.T) {
	transport := mem.NewBroker(mem.Options{}).Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	defer transport.Close(t.Context())
	if _, err := agents.New("", &agents.Volatile{}, newCluster(), transport, agents.Options{Sources: []string{"s"}}); err == nil {
		t.Error("New without a cluster succeeded")
	}
	if _, err := agents.New("c1", &agents.Volatile{}, newCluster(), transport, agents.Options{}); err == nil {
		t.Error("New without a source succeeded")
	}
}
