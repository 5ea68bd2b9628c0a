package apply

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// createOnly creates the object if it is missing. Of one that exists it changes
// nothing but its owners.
func createOnly(ctx context.Context, c *client, t task) applied {
	e := entry{objectID: t.id(), Version: t.resource.Version}
	for range conflictTries {
		live, err := c.see(ctx, t.manifest)
		if err != nil {
			return applied{outcome: unread(t.manifest, err)}
		}
		if live == nil {
			did, exists := createObject(ctx, c, t)
			if exists {
				continue
			}
			return did
		}
		after, err := ensureOwner(ctx, c, t, e, live)
		switch {
		case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
			continue
		case err != nil:
			return applied{outcome: withPresence(failure(t.gvk(), err), present)}
		}
		a := unchanged
		if after.GetResourceVersion() != live.GetResourceVersion() {
			a = configured
		}
		return applied{outcome: done(a), live: after, whole: entire(t.manifest, live)}
	}
	return applied{outcome: withPresence(failure(t.gvk(), errBusy), present)}
}

// ensureOwner writes the owners of live if they are not as they should be.
func ensureOwner(ctx context.Context, c *client, t task, e entry, live metav1.Object) (metav1.Object, error) {
	owners := withOwner(live.GetOwnerReferences(), t.owner, t.option.owned)
	if slices.EqualFunc(owners, live.GetOwnerReferences(), sameOwner) {
		return live, nil
	}
	return c.setOwners(ctx, e, live, owners)
}
