package apply

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
)

const ownerKind = "AppliedManifestWork"

// ownerRef is what makes an object belong to an AppliedManifestWork. That kind
// is cluster scoped, so it may own any object. Several may own one object, so
// none is the controller.
func ownerRef(name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: workv1.GroupVersion.String(), Kind: ownerKind, Name: name, UID: uid}
}

func isAppliedWork(r metav1.OwnerReference) bool {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	return err == nil && gv.Group == workv1.GroupName && r.Kind == ownerKind
}

func ownedBy(refs []metav1.OwnerReference, uid types.UID) bool {
	return slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == uid })
}

// sharedWithWorks says whether an AppliedManifestWork other than uid has the
// object. Owners of other kinds do not keep it, nor does a reference to one that
// is gone, or is ours and does not list the object. Another agent's may list it
// only after it has become an owner.
func (c *client) sharedWithWorks(ctx context.Context, e entry, refs []metav1.OwnerReference, uid types.UID) (bool, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	for _, r := range refs {
		if !isAppliedWork(r) || r.UID == uid {
			continue
		}
		w, err := c.works.Get(ctx, r.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return false, fmt.Errorf("look up owner %s: %w", r.Name, err)
		}
		_, listsFirst := w.Annotations[sourceAnnotation]
		if w.UID == r.UID && (!listsFirst || lists(w, e.objectID)) {
			return true, nil
		}
	}
	return false, nil
}

// withOwner returns the owners that an object should have, given those that it
// has. A reference to an earlier incarnation of our AppliedManifestWork goes:
// were it the only one left, the garbage collector would delete the object.
func withOwner(refs []metav1.OwnerReference, owner metav1.OwnerReference, owned bool) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	found := false
	for _, r := range refs {
		switch {
		case r.UID == owner.UID:
			if owned && !found {
				out = append(out, r)
			}
			found = true
		case isAppliedWork(r) && r.Name == owner.Name:
		default:
			out = append(out, r)
		}
	}
	if owned && !found {
		out = append(out, owner)
	}
	return out
}
