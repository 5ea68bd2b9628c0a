package apply

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"
)

// An objectID names an object on the cluster, whichever version it is read in.
type objectID struct{ Group, Resource, Namespace, Name string }

// String names the object for messages.
func (o objectID) String() string {
	s := schema.GroupResource{Group: o.Group, Resource: o.Resource}.String() + " "
	if o.Namespace != "" {
		s += o.Namespace + "/"
	}
	return s + o.Name
}

// An entry is one object of an inventory.
type entry struct {
	objectID
	Version string
	UID     string
}

func (e entry) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: e.Group, Version: e.Version, Resource: e.Resource}
}

func readInventory(status workv1.AppliedManifestWorkStatus) []entry {
	entries := make([]entry, 0, len(status.AppliedResources))
	for _, r := range status.AppliedResources {
		entries = append(entries, entry{
			objectID: objectID{Group: r.Group, Resource: r.Resource, Namespace: r.Namespace, Name: r.Name},
			Version:  r.Version, UID: r.UID,
		})
	}
	return entries
}

func writeInventory(entries []entry) []workv1.AppliedManifestResourceMeta {
	out := make([]workv1.AppliedManifestResourceMeta, 0, len(entries))
	for _, e := range entries {
		out = append(out, workv1.AppliedManifestResourceMeta{
			ResourceIdentifier: workv1.ResourceIdentifier{
				Group: e.Group, Resource: e.Resource, Namespace: e.Namespace, Name: e.Name,
			},
			Version: e.Version, UID: e.UID,
		})
	}
	return out
}

// unite returns have with the objects of want that it lacks, and whether that
// is more than have. The version of want wins: it is the one that is served
// now. UIDs are kept, since a version says nothing of the object.
func unite(have, want []entry) (union []entry, changed bool) {
	union = slices.Clone(have)
	at := make(map[objectID]int, len(union))
	for i, e := range union {
		at[e.objectID] = i
	}
	for _, e := range want {
		i, ok := at[e.objectID]
		switch {
		case !ok:
			at[e.objectID] = len(union)
			union = append(union, e)
			changed = true
		case union[i].Version != e.Version:
			union[i].Version = e.Version
			changed = true
		}
	}
	return union, changed
}

// dropped returns the entries of have that are not in want.
func dropped(have, want []entry) []entry {
	wanted := make(map[objectID]bool, len(want))
	for _, e := range want {
		wanted[e.objectID] = true
	}
	var out []entry
	for _, e := range have {
		if !wanted[e.objectID] {
			out = append(out, e)
		}
	}
	return out
}

// without returns have less what is gone.
func without(have []entry, gone map[objectID]bool) []entry {
	return slices.DeleteFunc(slices.Clone(have), func(e entry) bool { return gone[e.objectID] })
}
