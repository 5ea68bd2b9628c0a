package apply

import (
	"encoding/json"
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

// readInventory returns the objects that an AppliedManifestWork lists. A new one
// lists them in an annotation, in which case unlisted says that its status does
// not.
//
// A status is never emptied once it lists something. Were it, what the annotation
// says would be looked at once more, and left alone where it has other owners.
func readInventory(w *workv1.AppliedManifestWork) (entries []entry, unlisted bool) {
	if len(w.Status.AppliedResources) == 0 {
		var noted []notedEntry
		// Whoever made it something else has taken the list away.
		_ = json.Unmarshal([]byte(w.Annotations[inventoryAnnotation]), &noted)
		for _, n := range noted {
			entries = append(entries, entry{objectID: objectID{n.Group, n.Resource, n.Namespace, n.Name}, Version: n.Version})
		}
		return entries, len(entries) > 0
	}
	entries = make([]entry, 0, len(w.Status.AppliedResources))
	for _, r := range w.Status.AppliedResources {
		entries = append(entries, entry{
			objectID: objectID{Group: r.Group, Resource: r.Resource, Namespace: r.Namespace, Name: r.Name},
			Version:  r.Version, UID: r.UID,
		})
	}
	return entries, false
}

// lists says whether an AppliedManifestWork lists the object.
func lists(w *workv1.AppliedManifestWork, id objectID) bool {
	entries, _ := readInventory(w)
	return slices.ContainsFunc(entries, func(e entry) bool { return e.objectID == id })
}

// A notedEntry is an entry in an annotation.
type notedEntry struct {
	Group     string `json:"g,omitempty"`
	Version   string `json:"v"`
	Resource  string `json:"r"`
	Namespace string `json:"ns,omitempty"`
	Name      string `json:"n"`
}

// annotateInventory writes entries as an annotation, if there is room: all
// annotations of an object may have 256 KiB, and others put some as well.
func annotateInventory(entries []entry) (text string, ok bool) {
	const most = 32 << 10
	noted := make([]notedEntry, 0, len(entries))
	for _, e := range entries {
		noted = append(noted, notedEntry{e.Group, e.Version, e.Resource, e.Namespace, e.Name})
	}
	raw, err := json.Marshal(noted)
	return string(raw), err == nil && len(raw) <= most && len(noted) > 0
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
