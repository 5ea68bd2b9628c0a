package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// Delete removes what the work has on the cluster; see agents.Applier.
func (a *Applier) Delete(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	key := workKey{b.Source, b.ID}
	blockers, err := a.deleteWork(ctx, key, b)
	if err = errors.Join(stillThere(blockers), err); err != nil {
		report, encodeErr := codec.NewReport(b, deletingStatus(lastStatus(last), err, b.Generation, metav1.Now()))
		return report, errors.Join(fmt.Errorf("delete work %s of source %s: %w", b.ID, b.Source, err), encodeErr)
	}
	a.forget(key)
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: api.ConditionDeleted, Status: metav1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Reason: api.ReasonDeleted, Message: "The manifests are deleted from the cluster " + b.Cluster,
	}}})
}

// deletingStatus says what is still there, beside what was last said.
func deletingStatus(last workv1.ManifestWorkStatus, err error, generation int64, now metav1.Time) workv1.ManifestWorkStatus {
	status := *last.DeepCopy()
	deleting := stamp(metav1.Condition{
		Type: api.ConditionDeleting, Status: metav1.ConditionTrue, Reason: api.ReasonDeleting,
		Message: clip(err.Error()), ObservedGeneration: generation,
	}, last.Conditions, now)
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c metav1.Condition) bool { return c.Type == deleting.Type })
	status.Conditions = append(status.Conditions, deleting)
	return status
}

func (a *Applier) deleteWork(ctx context.Context, key workKey, b codec.Bundle) (blockers []string, err error) {
	works, err := a.toDelete(ctx, key, b)
	if err != nil {
		return nil, err
	}
	work, err := b.Work()
	if err != nil {
		// Manifests that cannot be read do not say which objects stay, but the
		// deletion itself may.
		b.Payload = nil
		if work, err = b.Work(); err != nil {
			work = &workv1.ManifestWork{}
		}
	}
	keep := spares(&work.Spec)
	for i := range works {
		if a.held(key) == nil {
			a.hold(key, newHolding(&works[i]))
		}
		left, err := a.dismantle(ctx, key, &works[i], keep)
		blockers = append(blockers, left...)
		if err != nil {
			return blockers, err
		}
	}
	return blockers, nil
}

// toDelete finds all that the cluster has of a work: by its identity, and under
// its name what another agent for the same hub left. What meanwhile belongs to
// another work of the same name is not its own.
func (a *Applier) toDelete(ctx context.Context, key workKey, b codec.Bundle) ([]workv1.AppliedManifestWork, error) {
	works, err := a.appliedWorks(ctx, key)
	if err != nil {
		return nil, err
	}
	name := b.ID
	if work, err := b.Work(); err == nil {
		name = work.Name
	}
	name = a.nameOf(name)
	if slices.ContainsFunc(works, func(w workv1.AppliedManifestWork) bool { return w.Name == name }) {
		return works, nil
	}
	live, err := a.getAppliedWork(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("AppliedManifestWork %s: %w", name, err)
	}
	if live != nil && keyOf(live, key) == key && !a.elsewhere(live) {
		works = append(works, *live)
	}
	return works, nil
}

// dismantle deletes an AppliedManifestWork: first it is marked as deleted, so
// that everybody sees what is going on, then its objects go, then itself.
// Custom resources go before all other objects, which may be what finishes
// them: their controller, its rights, their CRD. Those that keep names only lose
// their owner.
func (a *Applier) dismantle(ctx context.Context, key workKey, live *workv1.AppliedManifestWork, keep func(entry) bool) (blockers []string, err error) {
	id := appliedWorkID(live.Name)
	a.index.begin(id)
	defer func() { a.bell.ring(a.index.end(id, key, a.index.wanted(id, key), outcome{}, nil, digest{})...) }()
	if live.DeletionTimestamp == nil {
		if err := a.markDeleted(ctx, live); err != nil {
			return nil, fmt.Errorf("delete AppliedManifestWork %s: %w", live.Name, err)
		}
	}
	c, err := a.rights.clientOf(live)
	if err != nil {
		return nil, err
	}
	entries, _ := readInventory(live)
	custom := slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return resourceRank(e.Resource) < rankOther })
	_, blockers, err = removeAll(ctx, c, live.UID, custom, keep)
	if err != nil || len(blockers) > 0 {
		return blockers, a.rights.explain(live, err)
	}
	_, blockers, err = removeAll(ctx, c, live.UID, dropped(entries, custom), keep)
	if err != nil || len(blockers) > 0 {
		return blockers, a.rights.explain(live, err)
	}
	return a.letGo(ctx, live)
}

func (a *Applier) markDeleted(ctx context.Context, live *workv1.AppliedManifestWork) error {
	ctx, cancel := a.client.limit(ctx)
	defer cancel()
	background := metav1.DeletePropagationBackground
	err := a.client.works.Delete(ctx, live.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &live.UID}, PropagationPolicy: &background,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// letGo takes our finalizer off, upon which the AppliedManifestWork vanishes
// unless others have put finalizers on it.
func (a *Applier) letGo(ctx context.Context, live *workv1.AppliedManifestWork) (blockers []string, err error) {
	left := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == api.AppliedWorkFinalizer })
	if left == nil {
		left = []string{}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": live.UID, "finalizers": left}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.client.limit(ctx)
	defer cancel()
	_, err = a.client.works.Patch(ctx, live.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: updateManager})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("take the finalizer off AppliedManifestWork %s: %w", live.Name, err)
	}
	if err == nil && len(left) > 0 {
		e := entry{objectID: appliedWorkID(live.Name), Version: appliedWorkResource.Version}
		return []string{describeBlocker(e, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Finalizers: left}})}, nil
	}
	return nil, nil
}
