package agents_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

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

// TestShortenedReportIsNoDifference: the source has the hash of what it was
// sent, not of what was too large to be sent.
func TestShortenedReportIsNoDifference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 8000})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.applier = &bigReports{cluster: b.cluster}
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(5 * time.Minute)
		s, err := b.last("w").Status()
		if err != nil || len(s.Conditions) != 1 || len(s.ResourceStatus.Manifests) != 0 {
			t.Fatalf("report = %+v, %v, want the conditions only", s, err)
		}
		before := b.sent()
		b.settle(2 * time.Hour)
		if got := b.sent() - before; got != 0 || !a.InSync("hub1") {
			t.Errorf("%d more reports of what did not change, in sync %v; want none, in sync", got, a.InSync("hub1"))
		}
	})
}

// TestStatusThatTheSourceLostIsSentAgain: the other half of the digest.
func TestStatusThatTheSourceLostIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		for _, id := range []string{"a", "b", "c"} {
			h.want(work("hub1", id, 1, id), false)
		}
		b.settle(time.Minute)
		empty, err := codec.HashStatus(workv1.ManifestWorkStatus{})
		if err != nil {
			t.Fatal(err)
		}
		h.b.mu.Lock()
		h.statuses["b"] = empty
		h.b.mu.Unlock()
		before := b.sent()
		h.hello()
		b.settle(time.Minute)
		if got := b.sent() - before; got != 1 || !a.InSync("hub1") {
			t.Errorf("%d reports, in sync %v; want the lost one, in sync", got, a.InSync("hub1"))
		}
		if r := b.last("b"); r.Generation != 1 || conditionOf(t, r, "Applied").Status != metav1.ConditionTrue {
			t.Errorf("report sent again = %+v, want Applied", r)
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

// TestSourceWithoutStatus: sources spell in three ways that they hold no status
// of a work.
func TestSourceWithoutStatus(t *testing.T) {
	empty, err := codec.HashStatus(workv1.ManifestWorkStatus{})
	if err != nil {
		t.Fatal(err)
	}
	const (
		recurring = "w"
		unique    = "71913eda-1478-4abc-a625-69b6114a2f52"
		ofNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	)
	other := strings.Repeat("0", 64)
	for _, tc := range []struct {
		reason  string
		id      string
		silent  bool // The report on the work has an empty status.
		deleted bool
		hashes  []string // As the source lists the work.
		want    int      // Reports upon each.
	}{
		{"there is no status on either side", recurring, true, false, []string{empty, ofNothing}, 0},
		{"the source holds a status that the work does not have", recurring, true, false, []string{other}, 1},
		{"the source lacks the status", recurring, false, false, []string{empty, ofNothing, other}, 1},
		{"a source without a status created the work again", recurring, false, true, []string{empty, ofNothing}, 0},
		{"the source holds what was before the deletion", recurring, false, true, []string{other}, 1},
		{"a work with this ID is not created again", unique, false, true, []string{empty, ofNothing, other}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			if tc.silent {
				b.applier = &speechless{b.cluster}
			}
			b.run(agents.Options{})
			b.settle(time.Second)
			b.publish(work("hub1", tc.id, 1, "one"), codec.Create)
			b.settle(time.Second)
			if tc.deleted {
				b.publish(gone("hub1", tc.id, 2), codec.Delete)
				b.settle(time.Second)
			}
			for _, hash := range tc.hashes {
				before := b.sent()
				b.publish(codec.StatusResync{Source: "hub1", Cluster: "c1", Hashes: []codec.StatusHash{{ID: tc.id, Hash: hash}}}, codec.ResyncRequest)
				b.settle(time.Second)
				if got := b.sent() - before; got != tc.want {
					t.Errorf("%s: %d reports upon hash %.8s, want %d", tc.reason, got, hash, tc.want)
				}
			}
		})
	}
}

// speechless reports nothing of what was applied.
type speechless struct{ *cluster }

func (s *speechless) Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	if _, err := s.cluster.Apply(ctx, b, last); err != nil {
		return codec.Report{}, err
	}
	return codec.NewReport(b, workv1.ManifestWorkStatus{})
}

// conditionOf returns a condition of a report; the zero value if there is none.
func conditionOf(t *testing.T, r codec.Report, name string) metav1.Condition {
	t.Helper()
	s, err := r.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Conditions {
		if c.Type == name {
			return c
		}
	}
	return metav1.Condition{}
}
