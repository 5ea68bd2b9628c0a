package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// serverSideApply lets the server merge the manifest with what other field
// managers own. A conflict with one of them is reported and not tried again
// until they or the manifest change.
func serverSideApply(ctx context.Context, c *client, t task) applied {
	for range conflictTries {
		live, err := c.get(ctx, t.manifest)
		if apierrors.IsNotFound(err) {
			live, err = nil, nil
		}
		if err != nil {
			return applied{outcome: unread(t.manifest, err)}
		}
		if live != nil && live.GetDeletionTimestamp() != nil {
			return applied{outcome: withPresence(failure(t.gvk(), errDeleting), present), live: live}
		}
		did, conflict := applyObject(ctx, c, t, live)
		if !conflict {
			return did
		}
	}
	return applied{outcome: withPresence(failure(t.gvk(), errBusy), present)}
}

// applyObject sends the manifest if that changes something. It says whether the
// object changed since it was read.
func applyObject(ctx context.Context, c *client, t task, live *unstructured.Unstructured) (did applied, conflict bool) {
	there := absent
	if live != nil {
		there = present
	}
	reduced, sum, err := reduce(ctx, t, live)
	if err != nil {
		return applied{outcome: unreduced(t.manifest, err, there), live: liveObject(live)}, false
	}
	var first *rival
	if live != nil {
		if first, err = t.rival(ctx, live); err != nil {
			return applied{outcome: withPresence(failure(t.gvk(), err), present)}, false
		}
	}
	if first != nil && !first.splits(t.option) {
		return t.yield(ctx, c, t.of(reduced), live, first, kindRule{})
	}
	intent := applyIntent(t, live, reduced, sum)
	if first != nil {
		// Nothing is forced on a work that has the object first, and the annotation
		// is its own.
		t = t.unforced()
		annotations := intent.GetAnnotations()
		delete(annotations, api.SpecHashAnnotation)
		intent.SetAnnotations(annotations)
	}
	known := t.known
	var claims []claim
	if live != nil {
		known.withhold(intent)
		if isApplied(live, intent, t, sum) || (known.result != digest{} && known.result == known.digest(live, t.object)) {
			return applied{outcome: known.verdict(done(unchanged), live, reduced), live: live, result: known.result}, false
		}
		claims = claimed(live, intent, t.option.self(), false)
		if known.conflict.stands(claims) {
			return applied{outcome: withPresence(refused(known.conflict.err), there), live: live}, false
		}
		if err := c.adopt(ctx, t.manifest, live); err != nil {
			return applied{outcome: withPresence(failure(t.gvk(), err), there)}, apierrors.IsConflict(err)
		}
	}
	after, err := c.applyPatch(ctx, t.manifest, intent)
	switch {
	case err != nil && apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict):
		known.conflict = conflictOf(claims, describeConflict(err))
		return applied{outcome: withPresence(refused(known.conflict.err), there), live: liveObject(live), learned: &known}, false
	case apierrors.IsConflict(err):
		return applied{}, true
	case err != nil:
		return applied{outcome: withPresence(failure(t.gvk(), err), there)}, false
	}
	o := done(configured)
	switch {
	case live == nil:
		o = done(created)
	case after.GetResourceVersion() == live.GetResourceVersion():
		o = done(unchanged)
	case live.GetAnnotations()[api.SpecHashAnnotation] == sum:
		known = known.revert(overwritten(live, intent, t.option.self(), false, builtIn(t.meta.Group)), time.Now())
	}
	known.conflict = noConflict
	did = applied{outcome: known.verdict(o, after, reduced), live: after, result: known.digest(after, t.object), learned: &known}
	// Our reference is not in the intent any more, but it stays if it was
	// written in another way than by this field manager.
	if !t.option.owned && ownedBy(after.GetOwnerReferences(), t.owner.UID) {
		owner, err := ensureOwner(ctx, c, t, entry{objectID: t.id(), Version: t.resource.Version}, after)
		if err != nil {
			return applied{outcome: withPresence(failure(t.gvk(), err), present)}, false
		}
		did.live, did.whole, did.result = owner, after, digest{}
	}
	return did, false
}

// of is the task with another manifest of the same object.
func (t task) of(object *unstructured.Unstructured) task {
	m := *t.manifest
	m.object = object
	t.manifest = &m
	return t
}

// unforced is the task without force.
func (t task) unforced() task {
	m := *t.manifest
	m.option.force = false
	t.manifest = &m
	return t
}

// applyIntent is the object as it is sent. Other works may apply the same
// object under the same field manager, and what that manager does not send is
// removed: so the owner references of other works are sent as well.
func applyIntent(t task, live, reduced *unstructured.Unstructured, sum string) *unstructured.Unstructured {
	u := reduced.DeepCopy()
	dropNullTimestamps(u.Object)
	u.SetLabels(mergeMap(nil, u.GetLabels()))
	u.SetAnnotations(mergeMap(u.GetAnnotations(), map[string]string{api.SpecHashAnnotation: sum}))
	var owners []metav1.OwnerReference
	if live != nil {
		owners = slices.DeleteFunc(live.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return !isAppliedWork(r) })
	}
	if owners = withOwner(owners, t.owner, t.option.owned); len(owners) > 0 {
		u.SetOwnerReferences(owners)
	}
	return u
}

// applySum identifies what was applied and as whom; the server knows the rest.
func applySum(content, fieldManager string) string {
	sum := sha256.Sum256([]byte(content + "\n" + fieldManager))
	return hex.EncodeToString(sum[:16])
}

// isApplied says whether sending the intent would change nothing.
func isApplied(live, intent *unstructured.Unstructured, t task, sum string) bool {
	if live.GetAnnotations()[api.SpecHashAnnotation] != sum ||
		ownedBy(live.GetOwnerReferences(), t.owner.UID) != t.option.owned {
		return false
	}
	judged := judgement(strictly)
	if t.known.result.content == t.known.digest(live, t.object).content {
		judged = leniently(t.meta.Group) // The zeros that are missing were never stored.
	}
	return contains(liveLabels(live), liveLabels(intent), false) && judged(live.Object, intent.Object, kindRule{})
}

func liveLabels(u *unstructured.Unstructured) map[string]any {
	out := make(map[string]any)
	for field, entries := range map[string]map[string]string{"labels": u.GetLabels(), "annotations": u.GetAnnotations()} {
		values := make(map[string]any, len(entries))
		for key, value := range entries {
			values[key] = value
		}
		out[field] = values
	}
	return out
}

// adopt makes fields that we wrote by updates, when the work had another
// strategy, those of the manager that applies: else the two would be in conflict.
func (c *client) adopt(ctx context.Context, m *manifest, live *unstructured.Unstructured) error {
	patch, err := csaupgrade.UpgradeManagedFieldsPatch(live, sets.New(updateManager), m.option.fieldManager)
	if err != nil || patch == nil || !slices.ContainsFunc(live.GetManagedFields(), (ours{updateManager, metav1.ManagedFieldsOperationUpdate}).has) {
		return err
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	after, err := c.of(m.resource, live.GetNamespace()).Patch(ctx, live.GetName(), types.JSONPatchType, patch,
		metav1.PatchOptions{FieldManager: updateManager})
	if err != nil {
		return err
	}
	live.Object = after.Object
	return nil
}

// describeConflict names the fields and who owns them. What the
// server's causes hold of values is cut out.
func describeConflict(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return errors.New("other field managers own fields of the manifest")
	}
	var parts []string
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			parts = append(parts, cause.Message+" over "+withoutValues(cause.Field))
		}
	}
	return fmt.Errorf("%s; force the apply, or leave these fields out of the manifest", clip(strings.Join(parts, ", ")))
}
