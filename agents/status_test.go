package agents_test

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

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
