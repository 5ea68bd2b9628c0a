package agents_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

func TestForeignEventsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		elsewhere := work("hub1", "w", 1, "one")
		elsewhere.Cluster = "c2"
		b.publish(elsewhere, codec.Create)                                                             // Its address is c1's.
		b.publish(work("liar", "w", 1, "one"), codec.Create)                                           // Its address is hub1's.
		b.publish(work("hub2", "w", 1, "one"), codec.Create)                                           // Nobody this agent listens to.
		b.publish(codec.StatusResync{Source: "hub1", Cluster: "c2"}, codec.ResyncRequest)              // Not asked of c1.
		b.publish(codec.SpecResync{Agent: "hub1", Cluster: "c1"}, codec.ResyncRequest)                 // Not for agents.
		b.publish(codec.StatusResync{Source: "liar", Cluster: "c1", Hashes: nil}, codec.ResyncRequest) // Its address is hub1's.
		b.settle(time.Hour)
		wantHas(t, b.cluster, nil)
		if b.sent() != 0 {
			t.Errorf("%d reports, want none", b.sent())
		}
	})
}

func TestSourcesAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.listen("hub2")
		b.run(agents.Options{Sources: []string{"hub1", "hub2"}})
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.publish(work("hub2", "w", 5, "five"), codec.Create)
		b.settle(time.Second)
		b.publish(gone("hub1", "w", 2), codec.Delete)
		b.settle(time.Second)
		wantHas(t, b.cluster, map[string]string{"hub2/w": "five"})
		b.mu.Lock()
		b.questions = nil
		b.mu.Unlock()
		b.broker.Disconnect("c1-client")
		b.settle(time.Minute)
		b.mu.Lock()
		defer b.mu.Unlock()
		asked := map[int]int{}
		for _, q := range b.questions {
			asked[len(q.Versions)]++
		}
		if diff := cmp.Diff(map[int]int{0: 1, 1: 1}, asked); diff != "" {
			t.Errorf("questions by number of works listed, hub1 none and hub2 one (-want +got):\n%s", diff)
		}
	})
}

// TestSourceTakenOffTheList: an agent that is started without a source of which it
// has works keeps them, and what is to be said of them, until it serves it again.
func TestSourceTakenOffTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.listen("hub2")
		_, stop := b.run(agents.Options{Sources: []string{"hub1", "hub2"}})
		b.settle(time.Second)
		b.cluster.mu.Lock()
		b.cluster.next = append(b.cluster.next, errors.New("the cluster is away"))
		b.cluster.mu.Unlock()
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		synctest.Wait()
		b.broker.Stop() // The report on the next try stays in the store.
		b.settle(time.Minute)
		stop()
		b.broker.Start()
		before := b.sent()

		_, stop = b.run(agents.Options{Sources: []string{"hub2"}})
		b.settle(3 * time.Hour)
		stop()
		wantHas(t, b.cluster, map[string]string{"hub1/w": "one"})
		if n := b.sent() - before; n != 0 {
			t.Errorf("%d reports to a source that is not served", n)
		}

		b.run(agents.Options{Sources: []string{"hub1", "hub2"}})
		b.settle(time.Minute)
		status, err := b.last("w").Status()
		if err != nil {
			t.Fatal(err)
		}
		if !meta.IsStatusConditionTrue(status.Conditions, "Applied") || b.sent() == before {
			t.Errorf("the source is served again, and was told %v", status.Conditions)
		}
	})
}

// TestTooManyWorksToList: a question that does not fit becomes one that asks for
// everything, once per connection.
func TestTooManyWorksToList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 3000})
		b.source = b.listen("hub1")
		b.run(agents.Options{ResyncInterval: time.Minute})
		b.settle(time.Second)
		for i := range 100 {
			b.publish(work("hub1", fmt.Sprint("w", i), 1, "one"), codec.Create)
		}
		b.settle(10 * time.Second)
		b.mu.Lock()
		b.questions = nil
		b.mu.Unlock()
		b.broker.Disconnect("c1-client")
		b.settle(time.Hour)
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.questions) != 1 || len(b.questions[0].Versions) != 0 {
			t.Errorf("%d questions, the first with %d works; want one that lists none", len(b.questions), len(b.questions[0].Versions))
		}
	})
}

// TestSourcesCompareApart: two sources have works of the same ID; each is told
// of its own only, and a source that knows none has none deleted.
func TestSourcesCompareApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h1 := b.newHub("hub1")
		b.source = b.listen("hub2")
		h2 := b.newHub("hub2")
		a, _ := b.run(agents.Options{Sources: []string{"hub1", "hub2"}})
		b.settle(time.Second)
		h1.hello()
		h2.hello()
		h1.want(work("hub1", "w", 1, "one"), false)
		h1.want(work("hub1", "mine", 1, "one"), false)
		h2.want(work("hub2", "w", 5, "five"), false)
		b.settle(time.Minute)
		if !a.InSync("hub1") || !a.InSync("hub2") {
			t.Errorf("in sync with hub1 %v, hub2 %v, want both", a.InSync("hub1"), a.InSync("hub2"))
		}
		last := func(h *hub) codec.Digest { d := h.heard().digests; return d[len(d)-1] }
		if last(h1).Works != 2 || last(h2).Works != 1 {
			t.Errorf("digests of %d and %d works, want 2 and 1", last(h1).Works, last(h2).Works)
		}

		h2.b.mu.Lock()
		clear(h2.works)
		clear(h2.statuses)
		h2.b.mu.Unlock()
		h2.forget()
		h2.hello()
		h1.want(gone("hub1", "w", 2), false)
		b.settle(time.Minute)
		for _, page := range h2.heard().entries {
			for _, e := range page.Entries {
				if e.ID != "w" || e.Generation != 5 {
					t.Errorf("hub2 was told of %+v, which is not its work", e)
				}
			}
		}
		wantHas(t, b.cluster, map[string]string{"hub1/mine": "one", "hub2/w": "five"})
		if !a.InSync("hub1") || a.InSync("hub2") {
			t.Errorf("in sync with hub1 %v, hub2 %v, want hub1 only", a.InSync("hub1"), a.InSync("hub2"))
		}
	})
}
