package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// serverSideApply lets the server merge the manifest with what other field
// managers own. A conflict with one of them is reported and not tried again
// until the object or the manifest changes.
func serverSideApply(ctx context.Context, c *client, t task) applied {
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
	intent := applyIntent(t, live)
	if live != nil && (isApplied(live, intent, t) || t.known.result == digestLive(live)) {
		return applied{outcome: done(unchanged), live: live, result: t.known.result}
	}
	after, err := c.applyPatch(ctx, t.manifest, intent)
	if err != nil {
		return applyFailed(t, live, err)
	}
	a := configured
	if live == nil {
		a = created
	} else if after.GetResourceVersion() == live.GetResourceVersion() {
		a = unchanged
	}
	did := applied{outcome: done(a), live: after, result: digestLive(after)}
	// Our reference is not in the intent any more, but it stays if it was
	// written in another way than by this field manager.
	if !t.option.owned && ownedBy(after.GetOwnerReferences(), t.owner.UID) {
		owner, err := ensureOwner(ctx, c, t, entry{objectID: t.id(), Version: t.resource.Version}, after)
		if err != nil {
			return applied{outcome: withPresence(failure(t.gvk(), err), present)}
		}
		did.live, did.whole, did.result = owner, after, digest{}
	}
	return did
}

// applyIntent is the object as it is sent. Other works may apply the same
// object under the same field manager, and what that manager does not send is
// removed: so the owner references of other works are sent as well.
func applyIntent(t task, live *unstructured.Unstructured) *unstructured.Unstructured {
	u := t.object.DeepCopy()
	dropNullTimestamps(u.Object)
	u.SetLabels(mergeMap(nil, u.GetLabels()))
	u.SetAnnotations(mergeMap(u.GetAnnotations(), map[string]string{api.SpecHashAnnotation: applySum(t)}))
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
func applySum(t task) string {
	sum := sha256.Sum256([]byte(t.sum + "\n" + t.option.fieldManager))
	return hex.EncodeToString(sum[:16])
}

// isApplied says whether sending the intent would change nothing.
func isApplied(live, intent *unstructured.Unstructured, t task) bool {
	if live.GetAnnotations()[api.SpecHashAnnotation] != applySum(t) ||
		ownedBy(live.GetOwnerReferences(), t.owner.UID) != t.option.owned {
		return false
	}
	judged := judgement(strictly)
	if t.known.result.content == digestLive(live).content {
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

func applyFailed(t task, live *unstructured.Unstructured, err error) applied {
	there := absent
	if live != nil {
		there = present
	}
	if apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
		return applied{outcome: withPresence(refused(describeConflict(err)), there), live: liveObject(live)}
	}
	return applied{outcome: withPresence(failure(t.gvk(), err), there)}
}

// describeConflict names the fields and who owns them. The server's causes hold
// no values.
func describeConflict(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return errors.New("other field managers own fields of the manifest")
	}
	var parts []string
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			parts = append(parts, cause.Message+" over "+cause.Field)
		}
	}
	return fmt.Errorf("%s; force the apply, or leave these fields out of the manifest", clip(strings.Join(parts, ", ")))
}
