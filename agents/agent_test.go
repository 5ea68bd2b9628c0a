package agents_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

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

func TestStatusResyncIsAnsweredWithWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		for _, id := range []string{"a", "b", "c"} {
			b.publish(work("hub1", id, 1, id), codec.Create)
		}
		b.settle(time.Second)
		before, a, c := b.sent(), b.last("a"), b.last("c")
		b.publish(codec.StatusResync{Source: "hub1", Cluster: "c1", Hashes: []codec.StatusHash{
			{ID: "a", Hash: a.Hash}, {ID: "b", Hash: "of another time"}, // c is not listed.
		}}, codec.ResyncRequest)
		b.settle(time.Second)
		if got := b.sent() - before; got != 1 || b.last("a").Sequence != a.Sequence || b.last("c").Sequence != c.Sequence {
			t.Errorf("%d reports, want one, on b", got)
		}
		b.publish(codec.StatusResync{Source: "hub1", Cluster: "c1"}, codec.ResyncRequest)
		b.settle(time.Second)
		if got := b.sent() - before; got != 4 {
			t.Errorf("%d reports after a question without hashes, want all 3 more", got-1)
		}
		if again := b.last("a"); again.Sequence <= a.Sequence || again.Hash != a.Hash {
			t.Errorf("report sent again has sequence %d, want one above %d", again.Sequence, a.Sequence)
		}
	})
}

// TestQuestionIsAnsweredOnce: a broker with a log keeps a question for a while
// and hands it to the agent again whenever that comes back. What the source lacks
// since then it asks for anew.
func TestQuestionIsAnsweredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		b.publish(work("hub1", "a", 1, "a"), codec.Create)
		b.settle(time.Second)
		before := b.sent()
		q := codec.StatusResync{Source: "hub1", Cluster: "c1", Hashes: []codec.StatusHash{{ID: "a", Hash: "of another time"}}}
		question := b.encode(q, codec.ResyncRequest)
		for range 3 {
			b.publishEvent(question)
			b.settle(time.Second)
		}
		if got := b.sent() - before; got != 1 {
			t.Errorf("%d reports upon one question that came three times, want 1", got)
		}
		b.publish(q, codec.ResyncRequest)
		b.settle(time.Second)
		if got := b.sent() - before; got != 2 {
			t.Errorf("%d reports after the same question was asked again, want 2", got)
		}
	})
}

func TestTooLargeReportIsShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 2000})
		b.source = b.listen("hub1")
		big := &bigReports{cluster: b.cluster}
		transport := b.broker.Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
		a, err := agents.New("c1", b.store, big, transport, agents.Options{Sources: []string{"hub1"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = a.Run(ctx) })
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(time.Minute)
		s, err := b.last("w").Status()
		if err != nil || len(s.Conditions) != 1 || len(s.ResourceStatus.Manifests) != 0 {
			t.Errorf("report = %+v, %v, want the condition without the manifests", s, err)
		}
		if got := b.sent(); got != 1 {
			t.Errorf("%d reports, want 1: a size does not change by trying again", got)
		}
		cancel()
		done.Wait()
		_ = transport.Close(context.Background())
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

// bigReports reports more than the broker takes.
type bigReports struct{ *cluster }

func (b *bigReports) Apply(ctx context.Context, bundle codec.Bundle, last codec.Report) (codec.Report, error) {
	if _, err := b.cluster.Apply(ctx, bundle, last); err != nil {
		return codec.Report{}, err
	}
	return bigReport(bundle)
}

func (b *bigReports) Observe(_ context.Context, bundle codec.Bundle, _ codec.Report) (codec.Report, error) {
	return bigReport(bundle)
}

func bigReport(bundle codec.Bundle) (codec.Report, error) {
	s := workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{Type: "Applied", Status: metav1.ConditionTrue, Reason: "Imagined"}}}
	for i := range 100 {
		s.ResourceStatus.Manifests = append(s.ResourceStatus.Manifests, workv1.ManifestCondition{
			ResourceMeta: workv1.ManifestResourceMeta{Ordinal: int32(i), Kind: "ConfigMap", Name: fmt.Sprint("settings-", i)},
		})
	}
	return codec.NewReport(bundle, s)
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
