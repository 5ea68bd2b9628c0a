package observe_test

import (
	"testing"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

func benchmark(b *testing.B, r observe.Rules) {
	o := newObserver(b, observe.Options{})
	live := object(b, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","generation":1},"spec":{"replicas":2},
		"status":{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2,
		"conditions":[{"type":"Available","status":"True"},{"type":"Progressing","status":"True","reason":"NewReplicaSetAvailable"}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		o.Observe(b.Context(), live, r)
	}
}

func BenchmarkReadiness(b *testing.B) { benchmark(b, observe.Rules{}) }

func BenchmarkWellKnownStatus(b *testing.B) {
	benchmark(b, observe.Rules{Feedback: []workv1.FeedbackRule{{Type: workv1.WellKnownStatusType}}})
}

func BenchmarkJSONPath(b *testing.B) {
	benchmark(b, observe.Rules{Feedback: paths("Available", `.status.conditions[?(@.type=="Available")].status`)})
}

func BenchmarkCEL(b *testing.B) {
	benchmark(b, observe.Rules{Conditions: []workv1.ConditionRule{
		cel("hasConditions(object.status) && object.status.conditions.exists(c, c.type == 'Available' && c.status == 'True')"),
	}})
}
