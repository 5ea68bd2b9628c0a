package apply

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var (
	errBusy     = errors.New("others keep changing the object")
	errDeleting = errors.New("the object is being deleted")
)

// update is the default strategy: read, compare, and put what differs.
func update(ctx context.Context, c *client, t task) applied {
	fresh := t.fresh
	for range conflictTries {
		var live *unstructured.Unstructured
		if !fresh {
			var err error
			if live, err = c.get(ctx, t.manifest); err != nil && !apierrors.IsNotFound(err) {
				return applied{outcome: unread(t.manifest, err)}
			} else if err != nil {
				live = nil
			}
		}
		if live == nil {
			fresh = false
			did, exists := createObject(ctx, c, t)
			if exists {
				continue
			}
			return did
		}
		did, conflict := updateObject(ctx, c, t, live)
		if !conflict {
			return did
		}
	}
	return applied{outcome: withPresence(failure(t.gvk(), errBusy), present)}
}

// createObject says whether the object exists already instead.
func createObject(ctx context.Context, c *client, t task) (did applied, exists bool) {
	live, err := c.create(ctx, t.manifest, toCreate(t.manifest, t.owner))
	switch {
	case apierrors.IsAlreadyExists(err):
		return applied{}, true
	case err != nil:
		return applied{outcome: withPresence(failure(t.gvk(), err), absent)}, false
	}
	return applied{outcome: done(created), live: live, result: digestLive(live)}, false
}

func updateObject(ctx context.Context, c *client, t task, live *unstructured.Unstructured) (did applied, conflict bool) {
	if live.GetDeletionTimestamp() != nil {
		return applied{outcome: withPresence(failure(t.gvk(), errDeleting), present), live: live}, false
	}
	next := toUpdate(live, t.manifest, t.owner)
	if next == nil {
		return applied{outcome: done(unchanged), live: live}, false
	}
	if t.known != "" && t.known == digestLive(live) {
		return applied{outcome: done(unchanged), live: live, result: t.known}, false
	}
	after, err := c.update(ctx, t.manifest, next)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return applied{}, true
	case err != nil:
		return applied{outcome: withPresence(failure(t.gvk(), err), present)}, false
	}
	a := configured
	if after.GetResourceVersion() == live.GetResourceVersion() {
		a = unchanged
	}
	return applied{outcome: done(a), live: after, result: digestLive(after)}, false
}

// unread is the outcome of an object that could not be looked at.
func unread(m *manifest, err error) outcome {
	o := failure(m.gvk(), err)
	o.lookup = o.err
	return o
}

func withPresence(o outcome, p presence) outcome {
	o.presence = p
	return o
}
