package observe_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// manifestsOf draws manifests with conditions of rules and of the agent.
func manifestsOf(t *rapid.T) []workv1.ManifestCondition {
	statuses := rapid.SampledFrom([]metav1.ConditionStatus{"True", "False", "Unknown"})
	manifests := make([]workv1.ManifestCondition, rapid.IntRange(0, 6).Draw(t, "manifests"))
	for i := range manifests {
		m := &manifests[i]
		m.ResourceMeta = workv1.ManifestResourceMeta{Ordinal: int32(i), Kind: "ConfigMap", Name: fmt.Sprint("m", i)}
		m.Conditions = []metav1.Condition{{Type: "Applied", Status: statuses.Draw(t, "applied"), Reason: "AppliedManifestComplete"}}
		ready := rapid.SampledFrom([]string{"Current", "InProgress", "Failed", "Terminating", "NotFound", "Unknown"}).Draw(t, "ready")
		status := metav1.ConditionFalse
		if ready == observe.ReasonCurrent {
			status = metav1.ConditionTrue
		}
		m.Conditions = append(m.Conditions, metav1.Condition{Type: observe.ConditionReady, Status: status, Reason: ready})
		for _, name := range []string{"Complete", "Progressing", "Mine"} {
			if rapid.Bool().Draw(t, name) {
				m.Conditions = append(m.Conditions, metav1.Condition{
					Type: name, Status: statuses.Draw(t, name+" is"), Reason: workv1.ConditionRuleEvaluated, Message: fmt.Sprint(name, i),
				})
			}
		}
	}
	return manifests
}

func TestAggregateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		manifests := manifestsOf(t)
		got := observe.Aggregate(manifests)
		shuffled := rapid.Permutation(manifests).Draw(t, "order")
		for _, c := range observe.Aggregate(shuffled) {
			if was := meta.FindStatusCondition(got, c.Type); was == nil || was.Status != c.Status || was.Reason != c.Reason {
				t.Fatalf("the order of manifests changes %s from %v to %v", c.Type, was, c)
			}
		}
		for _, name := range []string{"Complete", "Mine", "Progressing"} {
			var of []metav1.ConditionStatus
			for _, m := range manifests {
				if c := meta.FindStatusCondition(m.Conditions, name); c != nil {
					of = append(of, c.Status)
				}
			}
			c := meta.FindStatusCondition(got, name)
			if len(of) == 0 {
				if c != nil && c.Reason == observe.ReasonAggregated {
					t.Fatalf("%s is aggregated from nothing: %v", name, c)
				}
				continue
			}
			if c == nil || c.Reason != observe.ReasonAggregated {
				t.Fatalf("%s is %v although rules speak of it", name, c)
			}
			first, last := metav1.ConditionFalse, metav1.ConditionTrue
			if name == "Progressing" {
				first, last = last, first
			}
			want := last
			switch {
			case slices.Contains(of, first):
				want = first
			case slices.Contains(of, metav1.ConditionUnknown):
				want = metav1.ConditionUnknown
			}
			if c.Status != want {
				t.Fatalf("%s of %v is %s, want %s", name, of, c.Status, want)
			}
		}
		// What a rollout takes for done is applied and current.
		if c := meta.FindStatusCondition(got, "Progressing"); c.Reason != observe.ReasonAggregated && c.Status == metav1.ConditionFalse {
			for _, m := range manifests {
				if !meta.IsStatusConditionTrue(m.Conditions, "Applied") {
					t.Fatalf("the work is not progressing although %s is not applied", m.ResourceMeta.Name)
				}
				if !meta.IsStatusConditionTrue(m.Conditions, observe.ConditionReady) && !observe.Completed(m.Conditions) {
					t.Fatalf("the work is not progressing although %s is not ready", m.ResourceMeta.Name)
				}
			}
		}
		// What is degraded is progressing, else no rollout would see it.
		progressing := meta.FindStatusCondition(got, "Progressing")
		if meta.IsStatusConditionTrue(got, "Degraded") && progressing.Reason != observe.ReasonAggregated && progressing.Status != metav1.ConditionTrue {
			t.Fatal("the work is degraded and not progressing")
		}
	})
}

func TestAggregateMessages(t *testing.T) {
	of := func(name, ready, message string) workv1.ManifestCondition {
		status := metav1.ConditionFalse
		if ready == observe.ReasonCurrent {
			status = metav1.ConditionTrue
		}
		return workv1.ManifestCondition{
			ResourceMeta: workv1.ManifestResourceMeta{Kind: "Deployment", Namespace: "default", Name: name},
			Conditions: []metav1.Condition{
				{Type: "Applied", Status: "True"},
				{Type: observe.ConditionReady, Status: status, Reason: ready, Message: message},
			},
		}
	}
	manifests := []workv1.ManifestCondition{of("a", "Current", ""), of("b", "InProgress", "Ready: 1/3"), of("c", "Failed", "Progress deadline exceeded")}
	var got []string
	for _, c := range observe.Aggregate(manifests) {
		got = append(got, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	want := []string{
		"Progressing=True Failed: 1 of 3 resources are not there yet: Deployment default/b: Ready: 1/3",
		"Degraded=True ResourcesFailed: 1 of 3 resources have failed: Deployment default/c: Progress deadline exceeded",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	var many []workv1.ManifestCondition
	for range 100 {
		many = append(many, of(strings.Repeat("n", 200), "InProgress", strings.Repeat("m", 1000)))
	}
	if c := observe.Aggregate(many)[0]; len(c.Message) > 1100 {
		t.Errorf("a message has %d bytes", len(c.Message))
	}
}

func TestReadiness(t *testing.T) {
	o := newObserver(t, observe.Options{})
	for _, c := range []struct{ reason, object, want string }{
		{"a kind without a status", `{"apiVersion":"v1","kind":"ConfigMap"}`, "True Current"},
		{"a Deployment that nobody looked at yet", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"generation":1},"spec":{"replicas":1}}`, "False InProgress"},
		{"a generation that was not observed", `{"apiVersion":"example.com/v1","kind":"X","metadata":{"generation":2},"status":{"observedGeneration":1}}`, "False InProgress"},
		{"a resource that says that it is ready", `{"apiVersion":"example.com/v1","kind":"X","status":{"conditions":[{"type":"Ready","status":"True"}]}}`, "True Current"},
		{"a resource that says that it is stuck", `{"apiVersion":"example.com/v1","kind":"X","status":{"conditions":[{"type":"Stalled","status":"True","message":"no"}]}}`, "False Failed"},
		{"a failed Job", `{"apiVersion":"batch/v1","kind":"Job","status":{"conditions":[{"type":"Failed","status":"True"}]}}`, "False Failed"},
		{"an object that is being deleted", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}`, "False Terminating"},
		{"a status of another form", `{"apiVersion":"example.com/v1","kind":"X","status":"fine"}`, "Unknown " + observe.ReasonUnknown},
	} {
		t.Run(c.reason, func(t *testing.T) {
			ready := find(t, o.Observe(t.Context(), object(t, c.object), observe.Rules{}), observe.ConditionReady)
			if got := string(ready.Status) + " " + ready.Reason; got != c.want {
				t.Errorf("got %s (%s), want %s", got, ready.Message, c.want)
			}
		})
	}
	t.Run("a rule of that name wins", func(t *testing.T) {
		rule := cel("false")
		rule.Condition = observe.ConditionReady
		got := o.Observe(t.Context(), object(t, `{"apiVersion":"v1","kind":"ConfigMap"}`), observe.Rules{Conditions: []workv1.ConditionRule{rule}})
		if len(got.Conditions) != 2 || find(t, got, observe.ConditionReady).Reason != workv1.ConditionRuleEvaluated {
			t.Errorf("got %v", got.Conditions)
		}
	})
	t.Run("a Pod that waits may fail by time alone", func(t *testing.T) {
		pod := `{"apiVersion":"v1","kind":"Pod","status":{"phase":"Pending"}}`
		if !o.Observe(t.Context(), object(t, pod), observe.Rules{}).Transient {
			t.Error("its readiness counts as settled")
		}
	})
}
