package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// maxNote is the API server's limit on the note of an event.
const maxNote = 1024

// A refusal is what Options.Check has against a work. It counts as malformed,
// which has the dispatcher wait for a change.
type refusal struct{ reason, message string }

func (r *refusal) Error() string { return r.message }

func (r *refusal) Is(target error) bool { return target == codec.ErrMalformed }

// Refused implements sources.Refuser. It keeps the Dispatched condition of the
// work and records an event when that becomes false or changes its reason.
func (s *Source) Refused(ctx context.Context, k sources.Key, generation int64, reason error) error {
	w, ok, err := s.find(ctx, k.ID)
	if err != nil || !ok || w.Namespace != k.Cluster {
		return err
	}
	if reason == nil && !refused(w) {
		return nil
	}
	rec := s.recordOf(k.ID)
	rec.writing.Lock()
	defer rec.writing.Unlock()
	w = s.newest(w)
	if errors.Is(reason, sources.ErrWithheld) && !s.withholds(w) {
		return nil // It was confirmed since.
	}

	var c metav1.Condition
	if reason != nil {
		c = dispatched(generation, reason)
	}
	change := func(w *workv1.ManifestWork) (conditions []metav1.Condition, changed bool) {
		conditions = slices.Clone(w.Status.Conditions)
		if reason == nil {
			changed = refused(w) && meta.RemoveStatusCondition(&conditions, api.ConditionDispatched)
		} else {
			changed = meta.SetStatusCondition(&conditions, c)
		}
		return conditions, changed
	}
	if _, changed := change(w); !changed {
		return nil
	}
	err = s.patchStatus(ctx, w, func(w *workv1.ManifestWork) *patchedStatus {
		conditions, changed := change(w)
		if !changed {
			return nil
		}
		return &patchedStatus{Conditions: conditions}
	})
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("write the %s condition of work %s/%s: %w", api.ConditionDispatched, w.Namespace, w.Name, err)
	}
	switch {
	case reason == nil:
	case c.Reason == api.ReasonDeletionWithheld:
		s.noteLimited(w, c.Reason, "Dispatch", c.Message)
	default:
		s.events.Eventf(w, nil, corev1.EventTypeWarning, c.Reason, "Dispatch", "%s", c.Message)
	}
	return nil
}

// refused says that a work has the condition of one that could not be sent.
func refused(w *workv1.ManifestWork) bool {
	c := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched)
	return c != nil && !inVain(c)
}

// ahead says that a work has the condition of one that is sent in vain: only its
// reports tell when that is over.
func ahead(w *workv1.ManifestWork) bool {
	c := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched)
	return c != nil && inVain(c)
}

func inVain(c *metav1.Condition) bool {
	return c.Reason == api.ReasonClusterAhead || c.Reason == api.ReasonClusterDeleted
}

// clusterDeleted says that the cluster deleted this generation of the work, or a
// later one, and takes no part in it any more.
func clusterDeleted(w *workv1.ManifestWork) bool {
	c := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched)
	return c != nil && c.Reason == api.ReasonClusterDeleted && c.ObservedGeneration == generation(w) && w.DeletionTimestamp == nil
}

// reportAhead takes a report on a later generation than there is: the hub was
// restored from a backup, and the cluster ignores what is older than what it
// has. The status is not that of this work, but its owner has to know.
func (s *Source) reportAhead(ctx context.Context, w *workv1.ManifestWork, r codec.Report) (sources.Verdict, error) {
	return s.reportInVain(ctx, w, r, isAhead, func(w *workv1.ManifestWork) metav1.Condition {
		return metav1.Condition{
			Reason: api.ReasonClusterAhead,
			Message: fmt.Sprintf("The cluster holds generation %d of this work, and this hub generation %d only, which the cluster "+
				"ignores. Was the hub restored from a backup? Edit the work until its generation is above %d, or delete it.",
				r.Generation, generation(w), r.Generation),
		}
	})
}

// isDeleted says that a report is on the deletion of a work that is not being
// deleted, of its generation or a later one. Only where IDs never recur can that
// be no other work than this.
func isDeleted(w *workv1.ManifestWork, r codec.Report) bool {
	id, err := uuid.Parse(r.ID)
	return err == nil && id.Version() == 4 && w.DeletionTimestamp == nil && r.Generation >= generation(w)
}

// reportDeleted takes the confirmation of a deletion that this hub does not know:
// it was restored from a backup that is older. The cluster remembers the
// deletion, and ignores the work.
func (s *Source) reportDeleted(ctx context.Context, w *workv1.ManifestWork, r codec.Report) (sources.Verdict, error) {
	return s.reportInVain(ctx, w, r, isDeleted, func(*workv1.ManifestWork) metav1.Condition {
		return metav1.Condition{
			Reason: api.ReasonClusterDeleted,
			Message: fmt.Sprintf("The cluster deleted this work when this hub told it to, which the hub does not remember, and ignores it. "+
				"Was the hub restored from a backup? If the work shall be there, create it anew, or edit it until its generation is above %d; "+
				"if not, delete it.", r.Generation),
		}
	})
}

// reportInVain has a work say why its cluster ignores it. That is so while holds
// says so of the work and the report. A work that cannot be sent says that first.
func (s *Source) reportInVain(ctx context.Context, w *workv1.ManifestWork, r codec.Report,
	holds func(*workv1.ManifestWork, codec.Report) bool, why func(*workv1.ManifestWork) metav1.Condition,
) (sources.Verdict, error) {
	var c metav1.Condition
	over := false
	change := func(w *workv1.ManifestWork) *patchedStatus {
		over = !holds(w, r)
		if over || refused(w) {
			return nil
		}
		c = why(w)
		c.Type, c.Status, c.ObservedGeneration = api.ConditionDispatched, metav1.ConditionFalse, generation(w)
		conditions := slices.Clone(w.Status.Conditions)
		if !meta.SetStatusCondition(&conditions, c) {
			return nil
		}
		return &patchedStatus{Conditions: conditions}
	}
	if change(w) == nil {
		return sources.Stale, nil
	}
	c = metav1.Condition{}
	err := s.patchStatus(ctx, w, change)
	switch {
	case apierrors.IsNotFound(err):
		return sources.Unknown, nil
	case err != nil && !permanent(err):
		return "", fmt.Errorf("write the %s condition of work %s/%s: %w", api.ConditionDispatched, w.Namespace, w.Name, err)
	case over:
		return "", fmt.Errorf("save generation %d of work %s/%s: the cache does not have it yet", r.Generation, w.Namespace, w.Name)
	case err == nil && c.Reason != "":
		s.log.Warn("cluster ignores a work, of which it has a later state than this hub", "cluster", w.Namespace, "work", w.Name,
			"id", r.ID, "generation", generation(w), "ahead", r.Generation, "reason", c.Reason)
		s.events.Eventf(w, nil, corev1.EventTypeWarning, c.Reason, "Dispatch", "%s", c.Message)
	}
	return sources.Stale, nil
}

// dispatched is the condition of a work that cannot be sent.
func dispatched(generation int64, reason error) metav1.Condition {
	c := metav1.Condition{
		Type:               api.ConditionDispatched,
		Status:             metav1.ConditionFalse,
		ObservedGeneration: generation,
		Reason:             api.ReasonInvalid,
	}
	if own, ok := errors.AsType[*refusal](reason); ok {
		c.Reason, c.Message = own.reason, truncated(own.message, maxNote)
		return c
	}
	advice := "Correct the work: its cluster keeps the last generation that could be sent."
	switch {
	case errors.Is(reason, sources.ErrWithheld):
		c.Reason = api.ReasonDeletionWithheld
		advice = "If it is meant, run fleetcast confirm works for this cluster, or annotate the work: " + api.ConfirmDeletionAnnotation + "=true. " +
			"That is possible also while its namespace is being deleted. The work stays on its cluster until then."
	case sources.TooLarge(reason):
		c.Reason = api.ReasonTooLarge
		advice = "Split the manifests over several works, shorten labels and annotations, or raise the broker's message size limit."
	case sources.RefusedByBroker(reason):
		c.Reason = api.ReasonRefusedByBroker
		advice = "Check the hub's permissions and quotas at the broker; the work is sent as soon as the broker takes it."
	}
	c.Message = note(reason, advice)
	return c
}

// note is a reason and advice within the limit of an event.
func note(reason error, advice string) string {
	return truncated(reason.Error(), maxNote-len(advice)-len(". ")) + ". " + advice
}

// truncated is the text, or as much of it as takes at most so many bytes.
func truncated(text string, most int) string {
	const ellipsis = ".."
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(ellipsis)], "") + ellipsis
}
