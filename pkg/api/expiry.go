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
// finished, or that belongs to a ManifestWorkReplicaSet. A work is finished as of
// the transition of its condition Complete to True, if its cluster said so of what
// the work asks for now.
func Expiry(w *workv1.ManifestWork) (time.Time, bool) {
	o := w.Spec.DeleteOption
	if o == nil || o.TTLSecondsAfterFinished == nil || *o.TTLSecondsAfterFinished < 0 || *o.TTLSecondsAfterFinished > maxTTL {
		return time.Time{}, false
	}
	if _, ok := w.Labels[ReplicaSetLabel]; ok {
		return time.Time{}, false
	}
	c := meta.FindStatusCondition(w.Status.Conditions, workv1.WorkComplete)
	if c == nil || c.Status != metav1.ConditionTrue || c.LastTransitionTime.IsZero() || !ofPresent(w, c) {
		return time.Time{}, false
	}
	return c.LastTransitionTime.Add(time.Duration(*o.TTLSecondsAfterFinished) * time.Second), true
}

// ofPresent says that a condition is of what the work asks for now. A deletion
// counts as a generation, and asks for nothing else.
func ofPresent(w *workv1.ManifestWork, c *metav1.Condition) bool {
	return c.ObservedGeneration == w.Generation || w.DeletionTimestamp != nil && c.ObservedGeneration == w.Generation-1
}
