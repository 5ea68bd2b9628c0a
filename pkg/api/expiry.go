package api

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
)

// ReplicaSetLabel is on the works that belong to a ManifestWorkReplicaSet, and
// names that. Whoever made them removes them.
const ReplicaSetLabel = "work.open-cluster-management.io/manifestworkreplicaset"

// maxTTL is the time to live, in seconds, above which a work is kept for ever. It
// is over a century.
const maxTTL = 100 * 366 * 24 * 60 * 60

// Expiry returns when the time to live of a finished work is over, and false for a
// work that stays: one that names no time to live or a negative one, that is not
// finished, that belongs to a ManifestWorkReplicaSet, or of which the cluster has a
// later state than the hub. A work is finished as of the transition of its condition
// Complete to True, if its cluster said so of what the work asks for now. No work is
// finished before it was made: see FinishedBeforeItWasMade.
func Expiry(w *workv1.ManifestWork) (time.Time, bool) {
	o := w.Spec.DeleteOption
	if o == nil || o.TTLSecondsAfterFinished == nil || *o.TTLSecondsAfterFinished < 0 || *o.TTLSecondsAfterFinished > maxTTL {
		return time.Time{}, false
	}
	if _, ok := w.Labels[ReplicaSetLabel]; ok {
		return time.Time{}, false
	}
	if d := meta.FindStatusCondition(w.Status.Conditions, ConditionDispatched); d != nil &&
		(d.Reason == ReasonClusterAhead || d.Reason == ReasonClusterDeleted) {
		return time.Time{}, false // What runs there is another than what was finished.
	}
	c := meta.FindStatusCondition(w.Status.Conditions, workv1.WorkComplete)
	if c == nil || c.Status != metav1.ConditionTrue || c.LastTransitionTime.IsZero() || !ofPresent(w, c) {
		return time.Time{}, false
	}
	finished := c.LastTransitionTime.Time
	if finished.Before(w.CreationTimestamp.Time) {
		finished = w.CreationTimestamp.Time
	}
	return finished.Add(time.Duration(*o.TTLSecondsAfterFinished) * time.Second), true
}

// FinishedBeforeItWasMade says that the clock of the cluster is wrong: by it, the
// work was finished before it existed. How long ago it was finished is then unknown.
func FinishedBeforeItWasMade(w *workv1.ManifestWork) bool {
	c := meta.FindStatusCondition(w.Status.Conditions, workv1.WorkComplete)
	return c != nil && c.Status == metav1.ConditionTrue && c.LastTransitionTime.Before(&w.CreationTimestamp)
}

// ofPresent says that a condition is of what the work asks for now. A deletion
// counts as a generation, and asks for nothing else.
func ofPresent(w *workv1.ManifestWork, c *metav1.Condition) bool {
	return c.ObservedGeneration == w.Generation || w.DeletionTimestamp != nil && c.ObservedGeneration == w.Generation-1
}
