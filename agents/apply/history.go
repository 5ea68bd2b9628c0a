package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
)

// appliedWorks lists the AppliedManifestWorks of a work, whatever their names,
// that which should stay first: one that nobody deletes, and of those the
// oldest.
func (a *Applier) appliedWorks(ctx context.Context, key workKey) ([]workv1.AppliedManifestWork, error) {
	works, err := a.findAppliedWorks(ctx, key)
	if err != nil {
		return nil, err
	}
	works = slices.DeleteFunc(works, func(w workv1.AppliedManifestWork) bool { return keyOf(&w, workKey{}) != key || a.elsewhere(&w) })
	slices.SortFunc(works, func(x, y workv1.AppliedManifestWork) int {
		switch xGoes, yGoes := x.DeletionTimestamp != nil, y.DeletionTimestamp != nil; {
		case xGoes && !yGoes:
			return 1
		case yGoes && !xGoes:
			return -1
		}
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(x.Name, y.Name))
	})
	return works, nil
}

// findAppliedWorks reads what may be the work's: what the register knows of, or,
// if that is not complete, what the server finds.
func (a *Applier) findAppliedWorks(ctx context.Context, key workKey) ([]workv1.AppliedManifestWork, error) {
	names, known := a.watches.appliedWorkNames(key)
	if !known {
		ctx, cancel := a.client.limit(ctx)
		defer cancel()
		list, err := a.client.works.List(ctx, metav1.ListOptions{LabelSelector: keyLabel + "=" + key.label()})
		if apierrors.IsNotFound(err) {
			return nil, nil // The kind is not even served: nothing was ever applied.
		}
		if err != nil {
			return nil, fmt.Errorf("list AppliedManifestWorks: %w", err)
		}
		return list.Items, nil
	}
	if h := a.held(key); h != nil && !slices.Contains(names, h.name) {
		names = append(names, h.name) // The register has not heard of it yet.
	}
	var works []workv1.AppliedManifestWork
	for _, name := range names {
		live, err := a.getAppliedWork(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("AppliedManifestWork %s: %w", name, err)
		}
		if live != nil {
			works = append(works, *live)
		}
	}
	return works, nil
}

// merge gives the objects of another AppliedManifestWork of the same work to
// the one that h is, and deletes it without them. They are listed by their new
// owner first, so that an agent that dies in between goes on where it was.
func (a *Applier) merge(ctx context.Context, c *client, key workKey, h *holding, other *workv1.AppliedManifestWork) error {
	entries, _ := readInventory(other)
	if missing := dropped(entries, h.entries); len(missing) > 0 {
		if err := a.writeInventory(ctx, key, h, slices.Concat(h.entries, missing)); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := handOver(ctx, c, e, other, ownerRef(h.name, h.uid)); err != nil {
			return fmt.Errorf("hand over %s: %w", e, err)
		}
	}
	if other.DeletionTimestamp == nil {
		if err := a.markDeleted(ctx, other); err != nil {
			return err
		}
	}
	blockers, err := a.letGo(ctx, other)
	if err != nil {
		return err
	}
	if len(blockers) > 0 {
		a.log.Warn("an AppliedManifestWork that is not needed any more is kept by finalizers of others",
			"source", key.source, "work", key.id, "name", other.Name)
	}
	return nil
}

// handOver replaces the owner of an object by another, if it has it.
func handOver(ctx context.Context, c *client, e entry, from *workv1.AppliedManifestWork, to metav1.OwnerReference) error {
	for range conflictTries {
		e, live, err := c.sight(ctx, e)
		if err != nil || live == nil || !ownedBy(live.OwnerReferences, from.UID) {
			return err
		}
		others := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(r metav1.OwnerReference) bool { return r.UID == from.UID })
		_, err = c.setOwners(ctx, e, live, withOwner(others, to, true))
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return errBusy
}
