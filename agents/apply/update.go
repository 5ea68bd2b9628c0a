package apply

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/pkg/api"
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

// updateObject writes the object if it is not as our last write left it. Is that
// not known, for the agent is new to it, it is enough that the object holds what
// the manifest says; what it holds beside that is taken for settled.
func updateObject(ctx context.Context, c *client, t task, live *unstructured.Unstructured) (did applied, conflict bool) {
	if live.GetDeletionTimestamp() != nil {
		return applied{outcome: withPresence(failure(t.gvk(), errDeleting), present), live: live}, false
	}
	if first, err := t.rival(ctx, live); err != nil {
		return applied{outcome: withPresence(failure(t.gvk(), err), present)}, false
	} else if first != nil {
		return t.yield(ctx, c, t, live, first, kindRules[t.gvk().GroupKind()])
	}
	past := autoscale(ctx, c, t.manifest, live, t.known)
	now, judged, foreign := past.digest(live, t.object), judgement(strictly), false
	settled := func(result digest) applied {
		return applied{outcome: past.verdict(done(unchanged), live, t.object), live: live, result: result, learned: &past}
	}
	switch {
	case past.result == now:
		return settled(digest{}), false
	case past.result == (digest{}):
		// Whether a zero of the manifest was taken away or is never stored shows
		// when it is written once.
	case past.result.content == now.content:
		judged = always
	case past.undid(now.content):
		judged = leniently(t.meta.Group)
	default:
		judged, foreign = never, true
	}
	next := toUpdate(live, t.manifest, t.owner, judged, past)
	if next == nil {
		if past.result != (digest{}) {
			now = digest{}
		}
		return settled(now), false
	}
	after, err := c.update(ctx, t.manifest, next)
	if apierrors.IsInvalid(err) {
		// What others added to the object, beside all that the manifest says, may
		// be such that it cannot be taken back.
		milder := toUpdate(live, t.manifest, t.owner, leniently(t.meta.Group), past)
		if milder == nil {
			return settled(now), false
		}
		if past.digest(milder, t.object).content == now.content {
			after, err = c.update(ctx, t.manifest, milder)
		} else if mustRecreate(t.manifest, live, next) {
			return recreateObject(ctx, c, t, live, next)
		}
	}
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return applied{}, true
	case err != nil:
		return applied{outcome: withPresence(failure(t.gvk(), err), present)}, false
	}
	o := done(configured)
	if after.GetResourceVersion() == live.GetResourceVersion() {
		o = done(unchanged)
	} else if past.result != (digest{}) || live.GetAnnotations()[api.SpecHashAnnotation] == t.sum {
		past = past.revert(overwritten(live, next, ours{updateManager, metav1.ManagedFieldsOperationUpdate}, true, builtIn(t.meta.Group)), time.Now())
	}
	if foreign {
		past = past.add(now.content)
	}
	return applied{
		outcome: past.verdict(o, after, t.object), live: after,
		result: past.digest(after, t.object), learned: &past,
	}, false
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
