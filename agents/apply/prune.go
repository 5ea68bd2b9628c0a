package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
)

// errRemains is wrapped by errors about objects that are not gone yet.
var errRemains = errors.New("still there")

// prune removes the objects that the work dropped, or leaves them to themselves
// if that is what the work says of its objects now. They stay in the inventory
// until they are gone.
func (a *Applier) prune(ctx context.Context, p *pass, h *holding, drop []entry) error {
	if len(drop) == 0 {
		return nil
	}
	key := p.key
	gone, blockers, err := removeAll(ctx, p.client, h.uid, drop, spares(&p.work.Spec))
	if errors.Is(err, errExecutor) {
		err = fmt.Errorf("executor %s lacks rights; give them back, or remove the objects: %w", p.executor, err)
		p.left = err
	}
	if len(gone) > 0 {
		if writeErr := a.writeInventory(ctx, key, h, without(h.entries, gone)); writeErr != nil {
			return errors.Join(writeErr, err)
		}
		for id := range gone {
			a.leave(id, key)
		}
		a.watches.sweep()
	}
	if err = errors.Join(stillThere(blockers), err); err != nil {
		return fmt.Errorf("remove what work %s of source %s dropped: %w", key.id, key.source, err)
	}
	return nil
}

// spares says which objects a work leaves to themselves: those that it orphans
// and those that it only reads.
func spares(spec *workv1.ManifestWorkSpec) func(entry) bool {
	return func(e entry) bool {
		// An option that cannot be read says nothing about who owns the object.
		o, _ := resolveOption(spec, workv1.ResourceIdentifier{
			Group: e.Group, Resource: e.Resource, Namespace: e.Namespace, Name: e.Name,
		})
		return !o.owned
	}
}

// removeAll removes entries in their order for deletion, and says which are
// gone and which are still there, and why. One that cannot be removed does not
// keep the others. Those that keep names only lose their owner.
func removeAll(ctx context.Context, c *client, owner types.UID, entries []entry, keep func(entry) bool) (gone map[objectID]bool, blockers []string, err error) {
	entries = slices.Clone(entries)
	sortForDelete(entries)
	gone = make(map[objectID]bool, len(entries))
	var errs []error
	for _, e := range entries {
		blocker, err := removeEntry(ctx, c, owner, e, keep(e))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("remove %s: %w", e, err))
		case blocker != "":
			blockers = append(blockers, blocker)
		default:
			gone[e.objectID] = true
		}
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
	}
	return gone, blockers, errors.Join(errs...)
}

// removeEntry deletes the object if it belongs to owner and to no other work.
// If other works have it, or it is to be kept, it only takes owner off. It returns what is in the
// way if the object is there to go and has not gone.
func removeEntry(ctx context.Context, c *client, owner types.UID, e entry, keep bool) (blocker string, err error) {
	for range conflictTries {
		e, live, err := c.sight(ctx, e)
		switch {
		case err != nil:
			return "", err
		case live == nil || !ownedBy(live.OwnerReferences, owner):
			return "", nil
		}
		shared := keep
		if !shared {
			if shared, err = c.sharedWithWorks(ctx, e, live.OwnerReferences, owner); err != nil {
				return "", err
			}
		}
		switch {
		case shared:
			owners := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(r metav1.OwnerReference) bool { return r.UID == owner })
			_, err = c.setOwners(ctx, e, live, owners)
		case live.DeletionTimestamp != nil:
			return describeBlocker(e, live), nil
		default:
			err = c.remove(ctx, e, live)
			if err == nil {
				return afterRemoval(ctx, c, e, live)
			}
		}
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return "", nil
		case !apierrors.IsConflict(err):
			return "", asExecutor(c, err)
		}
	}
	return "", errBusy
}

func afterRemoval(ctx context.Context, c *client, e entry, removed *metav1.PartialObjectMetadata) (blocker string, err error) {
	live, err := c.lookUp(ctx, e)
	if err != nil || live == nil || live.UID != removed.UID {
		return "", err
	}
	return describeBlocker(e, live), nil
}

// describeBlocker says which object remains, and what it waits for.
func describeBlocker(e entry, live *metav1.PartialObjectMetadata) string {
	const most = 5
	switch {
	case slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		return fmt.Sprintf("%s, finalizers %s, which waits for the objects that it owns", e, metav1.FinalizerDeleteDependents)
	case len(live.Finalizers) > most:
		return fmt.Sprintf("%s, finalizers %s and %d more", e, strings.Join(live.Finalizers[:most], ", "), len(live.Finalizers)-most)
	case len(live.Finalizers) > 0:
		return fmt.Sprintf("%s, finalizers %s", e, strings.Join(live.Finalizers, ", "))
	case e.Group == "" && e.Resource == "namespaces":
		return fmt.Sprintf("%s, its content is being removed", e)
	default:
		return fmt.Sprintf("%s, it is shutting down", e)
	}
}

// stillThere is the error that names the blockers, nil if there are none.
func stillThere(blockers []string) error {
	if len(blockers) == 0 {
		return nil
	}
	const most = 5
	text := strings.Join(blockers[:min(most, len(blockers))], "; ")
	if len(blockers) > most {
		text += fmt.Sprintf("; and %d more", len(blockers)-most)
	}
	return fmt.Errorf("%w: %s", errRemains, text)
}
