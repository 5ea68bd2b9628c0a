package agents_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// unreadable is an event about a work that says no more than which.
func (b *bench) unreadable(id string, generation int64) event.Event {
	b.t.Helper()
	e := b.encode(work("hub1", id, generation, "content"), codec.Update)
	e.Data = []byte(`{"manifests": [`)
	return e
}

func TestUnreadableVersionIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		b.publishEvent(b.unreadable("new", 1))
		b.settle(time.Second)
		r := b.last("new")
		c := conditionOf(t, r, "Applied")
		if r.Generation != 1 || r.Agent != "c1-work-agent" || c.Status != metav1.ConditionFalse ||
			c.Reason != agents.ReasonRejected || c.ObservedGeneration != 1 || !strings.Contains(c.Message, "body") {
			t.Errorf("report = %+v with %+v, want Applied False, Rejected and why, on generation 1", r, c)
		}

		before := b.sent()
		b.publishEvent(b.unreadable("new", 1))
		b.settle(time.Hour)
		if got := b.sent() - before; got != 0 {
			t.Errorf("%d more reports on the same generation, want none", got)
		}

		b.publish(work("hub1", "w", 3, "three"), codec.Create)
		b.settle(time.Second)
		before = b.sent()
		b.publishEvent(b.unreadable("w", 3))
		b.publishEvent(b.unreadable("w", 2))
		b.settle(time.Second)
		if got := b.sent() - before; got != 0 {
			t.Errorf("%d reports on bad copies of what the agent has, want none", got)
		}
		b.publishEvent(b.unreadable("w", 4))
		b.settle(time.Second)
		if r := b.last("w"); r.Generation != 4 || conditionOf(t, r, "Applied").Reason != agents.ReasonRejected {
			t.Errorf("report = %+v, want Rejected on generation 4", r)
		}
		wantHas(t, b.cluster, map[string]string{"hub1/w": "three"})
		b.publish(work("hub1", "w", 4, "four"), codec.Update) // It was the way that was bad.
		b.settle(time.Second)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "four"})
		if r := b.last("w"); r.Generation != 4 || conditionOf(t, r, "Applied").Status != metav1.ConditionTrue {
			t.Errorf("report = %+v, want Applied True on generation 4", r)
		}
	})
}

func TestUnsupportedVersionIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		e := b.encode(work("hub1", "w", 1, "one"), codec.Create)
		e.Set(event.Type, strings.Replace(e.Get(event.Type), "v1alpha1", "v2", 1))
		b.publishEvent(e)
		b.settle(time.Second)
		if c := conditionOf(t, b.last("w"), "Applied"); c.Reason != agents.ReasonRejected || !strings.Contains(c.Message, "v2") {
			t.Errorf("condition = %+v, want Rejected and the version", c)
		}
	})
}

// TestNobodyElseIsToldOfUnreadableEvents: what does not come from the address
// that it says it is from is dropped without a word.
func TestNobodyElseIsToldOfUnreadableEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		e := b.unreadable("w", 1)
		e.Set(event.Source, "liar")
		b.publishEvent(e)
		nameless := b.unreadable("w", 1)
		nameless.Unset("resourceid")
		b.publishEvent(nameless)
		b.settle(time.Minute)
		if got := b.sent(); got != 0 {
			t.Errorf("%d reports, want none", got)
		}
	})
}

func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		for i := range 1200 {
			b.publishEvent(b.unreadable(fmt.Sprint("w", i), 1))
		}
		b.settle(time.Minute)
		if got := b.sent(); got != 1000 {
			t.Errorf("%d reports on 1200 unreadable works, want 1000", got)
		}
	})
}

// TestRefusalAgreesWithDigests: that a version cannot be read does not make the
// statuses differ for ever, and is not lost when its report is.
func TestRefusalAgreesWithDigests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		old := b.last("w")

		h.want(work("hub1", "w", 2, "two"), true)
		b.publishEvent(b.unreadable("w", 2))
		b.settle(time.Second)
		refusal := b.last("w")
		if conditionOf(t, refusal, "Applied").Reason != agents.ReasonRejected {
			t.Fatalf("report = %+v, want Rejected", refusal)
		}
		before := b.sent()
		ask := func(hash string) {
			h.tell(codec.StatusResync{Source: "hub1", Cluster: "c1", Hashes: []codec.StatusHash{{ID: "w", Hash: hash}}}, codec.ResyncRequest)
			b.settle(time.Second)
		}
		ask(refusal.Hash)
		if got := b.sent() - before; got != 0 {
			t.Errorf("%d reports to a source that has the refusal, want none", got)
		}
		ask("")
		if got := b.last("w"); got.Hash != refusal.Hash || got.Sequence <= refusal.Sequence {
			t.Errorf("report = %+v, want the refusal again to a source that lost it", got)
		}
		before = b.sent()
		ask(old.Hash) // The source does not take it for one of its newest version.
		if got := b.sent() - before; got != 0 {
			t.Errorf("%d reports to a source that has the status of what runs, want none", got)
		}
		h.hello() // The comparison brings what was lost.
		b.settle(time.Minute)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "two"})
	})
}
