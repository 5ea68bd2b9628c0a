package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// pending says that the cluster did not report on the latest generation yet.
const pending = "Pending"

// A verdict is what is known about the latest generation of one work.
type verdict struct {
	// Applied and Available are True, False or Unknown, with ": <reason>" after
	// the latter two; or Pending, with ": offline" if the cluster is. Applied of a
	// work that is being deleted begins with Deleting.
	Applied, Available string
	// Observed is the generation that the cluster reported on last, 0 for none.
	Observed, Desired int64
	// Manifests counts what the work asks for, Ready of it what is applied,
	// available and, if the agent tells of that, ready.
	Manifests, Ready int
	// Done is true when this generation is applied and available.
	Done bool
	// Undeliverable is true when the hub gave up on sending this generation.
	Undeliverable bool
	// Withheld is true when the hub waits for somebody to confirm the deletion.
	Withheld bool
	// Obstacle says in one line what is in the way; empty if nothing is known to
	// be.
	Obstacle string
	// Offline says that the cluster is offline, in a clause; empty if it is not
	// known to be.
	Offline string
}

// judge decides what w's status says about w's generation, its cluster being
// present as p says.
func judge(w *workv1.ManifestWork, p *presence, now time.Time) verdict {
	v := verdict{Desired: w.Generation, Manifests: len(w.Spec.Workload.Manifests), Offline: p.offline(now)}
	for _, m := range w.Status.ResourceStatus.Manifests {
		if meta.IsStatusConditionTrue(m.Conditions, workv1.ManifestApplied) && meta.IsStatusConditionTrue(m.Conditions, workv1.ManifestAvailable) &&
			!meta.IsStatusConditionFalse(m.Conditions, api.ConditionReady) {
			v.Ready++
		}
	}

	applied := meta.FindStatusCondition(w.Status.Conditions, workv1.WorkApplied)
	available := meta.FindStatusCondition(w.Status.Conditions, workv1.WorkAvailable)
	if applied != nil {
		v.Observed = applied.ObservedGeneration
	}
	current := applied != nil && applied.ObservedGeneration >= w.Generation
	v.Applied, v.Available = pending, pending
	if current {
		v.Applied = cell(applied)
		// Not every agent says which generation its Available is about.
		if available != nil && (available.ObservedGeneration == 0 || available.ObservedGeneration >= w.Generation) {
			v.Available = cell(available)
		}
	}
	v.Done = v.Applied == string(metav1.ConditionTrue) && v.Available == string(metav1.ConditionTrue)

	switch sent := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched); {
	case !w.DeletionTimestamp.IsZero():
		v.Done = false
		if v.Withheld = withheld(w); v.Withheld {
			v.Applied = "Deleting: withheld"
			v.Obstacle = "the deletion is not sent before it is confirmed: " + confirmCommand(w)
			break
		}
		v.Obstacle = deletion(w)
		v.Applied = "Deleting: " + v.Obstacle
		if v.Obstacle == waitingForCluster && v.Offline != "" {
			v.Applied = "Deleting: offline"
			v.Obstacle = v.Offline + " and deletes this when it is back"
		}
	case sent != nil && sent.Status == metav1.ConditionFalse && (sent.ObservedGeneration == 0 || sent.ObservedGeneration >= w.Generation):
		v.Undeliverable = true
		v.Done = false
		v.Applied = "Not sent: " + sent.Reason
		v.Obstacle = "the hub cannot send it: " + sentence(sent)
	case v.Applied == pending && v.Offline != "":
		v.Applied = pending + ": offline"
		v.Obstacle = v.Offline + " and gets this when it is back"
	case v.Applied == pending:
		v.Obstacle = "the cluster has not reported on it yet"
		if v.Observed > 0 {
			v.Obstacle = fmt.Sprintf("the cluster reported on generation %d only", v.Observed)
		}
	case !v.Done:
		v.Obstacle = cmp.Or(firstObstacle(w), conditionObstacle(applied, available))
	default:
		v.Obstacle = unready(w)
	}
	return v
}

// unready says what a work that is applied and available is still short of.
func unready(w *workv1.ManifestWork) string {
	for _, kind := range []string{workv1.WorkDegraded, workv1.WorkProgressing} {
		c := meta.FindStatusCondition(w.Status.Conditions, kind)
		if c != nil && c.Status == metav1.ConditionTrue && (c.ObservedGeneration == 0 || c.ObservedGeneration >= w.Generation) {
			return kind + ": " + oneLine(cmp.Or(c.Message, c.Reason))
		}
	}
	return ""
}

// withheld says whether the hub holds the deletion of w back, because too many
// works of its cluster were deleted at once and nobody confirmed this one.
func withheld(w *workv1.ManifestWork) bool {
	c := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched)
	return !w.DeletionTimestamp.IsZero() && c != nil && c.Status == metav1.ConditionFalse &&
		c.Reason == api.ReasonDeletionWithheld && w.Annotations[api.ConfirmDeletionAnnotation] != "true"
}

// confirmCommand is what confirms the deletion of w.
func confirmCommand(w *workv1.ManifestWork) string {
	return fmt.Sprintf("fleetcast confirm works %s --cluster %s", w.Name, w.Namespace)
}

// waitingForCluster is what a deletion waits for of which the cluster said
// nothing yet.
const waitingForCluster = "waiting for the cluster"

// deletion says what a work that is being deleted waits for.
func deletion(w *workv1.ManifestWork) string {
	if meta.IsStatusConditionTrue(w.Status.Conditions, api.ConditionDeleted) {
		return "cluster confirmed"
	}
	if c := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDeleting); c != nil && c.Status == metav1.ConditionTrue && c.Message != "" {
		return oneLine(c.Message)
	}
	for _, f := range w.Finalizers {
		if f != api.WorkFinalizer {
			return "waiting for finalizer " + f
		}
	}
	return waitingForCluster
}

// firstObstacle names the first manifest that is not applied, or else the first
// that is not available.
func firstObstacle(w *workv1.ManifestWork) string {
	for _, kind := range []string{workv1.ManifestApplied, workv1.ManifestAvailable} {
		for _, m := range w.Status.ResourceStatus.Manifests {
			if c := meta.FindStatusCondition(m.Conditions, kind); c != nil && c.Status != metav1.ConditionTrue {
				return subject(m.ResourceMeta) + ": " + sentence(c)
			}
		}
	}
	return ""
}

func conditionObstacle(conditions ...*metav1.Condition) string {
	for _, c := range conditions {
		if c != nil && c.Status != metav1.ConditionTrue {
			return sentence(c)
		}
	}
	return ""
}

// subject names a manifest as people do: kind and name, with the namespace if
// there is one.
func subject(m workv1.ManifestResourceMeta) string {
	name := m.Name
	if m.Namespace != "" {
		name = m.Namespace + "/" + name
	}
	return strings.TrimSpace(cmp.Or(m.Kind, m.Resource, "manifest") + " " + name)
}

func cell(c *metav1.Condition) string {
	if c.Status == metav1.ConditionTrue || c.Reason == "" {
		return string(c.Status)
	}
	return string(c.Status) + ": " + c.Reason
}

func sentence(c *metav1.Condition) string {
	if c.Message == "" {
		return c.Reason
	}
	return c.Reason + ": " + oneLine(c.Message)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// message is what there is to say beside the columns. That a cluster is offline
// is no failure, but what it said may not be true any more.
func (v verdict) message() string {
	switch {
	case v.Offline == "" || strings.Contains(v.Obstacle, v.Offline):
		return v.Obstacle
	case v.Obstacle == "":
		return v.Offline + "; this is what it said before"
	default:
		return v.Obstacle + "; " + v.Offline
	}
}

// progress is v in a few words, for somebody who waits for it.
func (v verdict) progress() string {
	switch {
	case v.Done:
		return "applied and available"
	case v.Obstacle != "":
		return v.message()
	default:
		return fmt.Sprintf("%d of %d manifests ready", v.Ready, v.Manifests)
	}
}
