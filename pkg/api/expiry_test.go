package api_test

import (
	"math"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func TestExpiry(t *testing.T) {
	finished := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	// job is a work of generation 2 that was finished then, with a time to live.
	job := func(ttl int64) *workv1.ManifestWork {
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Generation: 2}}
		w.Spec.DeleteOption = &workv1.DeleteOption{TTLSecondsAfterFinished: &ttl}
		w.Status.Conditions = []metav1.Condition{
			{Type: workv1.WorkApplied, Status: metav1.ConditionTrue},
			{Type: workv1.WorkComplete, Status: metav1.ConditionTrue, ObservedGeneration: 2, LastTransitionTime: metav1.NewTime(finished)},
		}
		return w
	}
	complete := func(w *workv1.ManifestWork) *metav1.Condition { return &w.Status.Conditions[1] }
	// inVain is a work that says for which reason it is not where its cluster is.
	inVain := func(reason string) func(*workv1.ManifestWork) {
		return func(w *workv1.ManifestWork) {
			w.Status.Conditions = append(w.Status.Conditions, metav1.Condition{
				Type: api.ConditionDispatched, Status: metav1.ConditionFalse, Reason: reason, ObservedGeneration: 2,
			})
		}
	}
	deleted := metav1.NewTime(finished.Add(time.Hour))
	for name, tc := range map[string]struct {
		reason string
		ttl    int64
		change func(*workv1.ManifestWork)
		after  time.Duration // Negative for a work that stays.
	}{
		"at once":         {"0 is no time", 0, nil, 0},
		"after a minute":  {"seconds after it was finished", 60, nil, time.Minute},
		"after a year":    {"an hour is not the most", 31_536_000, nil, 31_536_000 * time.Second},
		"negative":        {"there is no such time", -1, nil, -1},
		"for ever":        {"it would overflow", math.MaxInt64, nil, -1},
		"no options":      {"it says nothing", 0, func(w *workv1.ManifestWork) { w.Spec.DeleteOption = nil }, -1},
		"no time":         {"nil is never", 0, func(w *workv1.ManifestWork) { w.Spec.DeleteOption.TTLSecondsAfterFinished = nil }, -1},
		"not finished":    {"it runs", 0, func(w *workv1.ManifestWork) { complete(w).Status = metav1.ConditionFalse }, -1},
		"unknown":         {"it may run", 0, func(w *workv1.ManifestWork) { complete(w).Status = metav1.ConditionUnknown }, -1},
		"nothing said":    {"nobody knows", 0, func(w *workv1.ManifestWork) { w.Status.Conditions = w.Status.Conditions[:1] }, -1},
		"changed since":   {"what was finished is another", 0, func(w *workv1.ManifestWork) { w.Generation = 3 }, -1},
		"cluster ahead":   {"what was finished is another", 0, inVain(api.ReasonClusterAhead), -1},
		"cluster deleted": {"what was finished is gone", 0, inVain(api.ReasonClusterDeleted), -1},
		"not sent":        {"the cluster has it all the same", 0, inVain(api.ReasonTooLarge), 0},
		"a clock of 1970": {"it was not finished before it was made", 60, func(w *workv1.ManifestWork) {
			w.CreationTimestamp = metav1.NewTime(finished)
			complete(w).LastTransitionTime = metav1.NewTime(time.Unix(3, 0))
		}, time.Minute},
		"of a set":      {"its set removes it", 0, func(w *workv1.ManifestWork) { w.Labels = map[string]string{api.ReplicaSetLabel: "a.b"} }, -1},
		"no transition": {"nobody knows when", 0, func(w *workv1.ManifestWork) { complete(w).LastTransitionTime = metav1.Time{} }, -1},
		"deleted":       {"the deletion counts as a generation", 60, func(w *workv1.ManifestWork) { w.DeletionTimestamp, w.Generation = &deleted, 3 }, time.Minute},
		"changed, then deleted": {
			"what was finished is another", 60,
			func(w *workv1.ManifestWork) { w.DeletionTimestamp, w.Generation = &deleted, 4 }, -1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := job(tc.ttl)
			if tc.change != nil {
				tc.change(w)
			}
			at, ok := api.Expiry(w)
			if ok != (tc.after >= 0) || ok && at.Sub(finished) != tc.after {
				t.Errorf("%s: %v after (%t), want %v", tc.reason, at.Sub(finished), ok, tc.after)
			}
		})
	}
}
