package kube

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// maxNote is the API server's limit on the note of an event.
const maxNote = 1024

// Refused implements sources.Refuser. It keeps the Dispatched condition of the
// work and records an event when that becomes false or changes its reason.
func (s *Source) Refused(ctx context.Context, k sources.Key, generation int64, reason error) error {
	w, ok, err := s.find(ctx, k.ID)
	if err != nil || !ok || w.Namespace != k.Cluster {
		return err
	}
	if reason == nil && meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched) == nil {
		return nil
	}
	rec := s.recordOf(k.ID)
	rec.writing.Lock()
	defer rec.writing.Unlock()
	w = s.newest(w)

	var c metav1.Condition
	if reason != nil {
		c = dispatched(generation, reason)
	}
	change := func(w *workv1.ManifestWork) (conditions []metav1.Condition, changed bool) {
		conditions = slices.Clone(w.Status.Conditions)
		if reason == nil {
			changed = meta.RemoveStatusCondition(&conditions, api.ConditionDispatched)
		} else {
			changed = meta.SetStatusCondition(&conditions, c)
		}
		return conditions, changed
	}
	if _, changed := change(w); !changed {
		return nil
	}
	err = s.patchStatus(ctx, w, func(w *workv1.ManifestWork) *patchedStatus {
		conditions, _ := change(w)
		return &patchedStatus{Conditions: conditions}
	})
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("write the %s condition of work %s/%s: %w", api.ConditionDispatched, w.Namespace, w.Name, err)
	}
	if reason != nil {
		s.events.Eventf(w, nil, corev1.EventTypeWarning, c.Reason, "Dispatch", "%s", c.Message)
	}
	return nil
}

// dispatched is the condition of a work that cannot be sent.
func dispatched(generation int64, reason error) metav1.Condition {
	c := metav1.Condition{
		Type:               api.ConditionDispatched,
		Status:             metav1.ConditionFalse,
		ObservedGeneration: generation,
		Reason:             api.ReasonInvalid,
	}
	advice := "Correct the work: its cluster keeps the last generation that could be sent."
	if sources.TooLarge(reason) {
		c.Reason = api.ReasonTooLarge
		advice = "Split the manifests over several works, shorten labels and annotations, or raise the broker's message size limit."
	}
	why := reason.Error()
	if room := maxNote - len(advice) - len(" ") - len("..: "); len(why) > room {
		why = why[:room] + ".."
	}
	c.Message = why + ". " + advice
	return c
}
