package apply

import (
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// A claim is a field that is not as the manifest says, and who made it so.
type claim struct {
	path fieldpath.Path
	// manager is empty if nobody has the field among his own, as after it was
	// removed.
	manager string
	// scaling says that the field was written through the scale subresource.
	scaling bool
}

func (c claim) field() string { return c.path.String() }

// elementValues are the values that elements of lists are found by in a path.
var elementValues = regexp.MustCompile(`\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\]`)

// withoutValues is a path for messages: the values in it are content.
func withoutValues(path string) string { return elementValues.ReplaceAllString(path, "[]") }

func (c claim) shown() string { return withoutValues(c.field()) }

// key tells claims of one object apart.
func (c claim) key() string { return c.manager + " " + c.field() }

// ours says which managed fields are those of a strategy.
type ours struct {
	manager   string
	operation metav1.ManagedFieldsOperationType
}

func (o ours) has(e metav1.ManagedFieldsEntry) bool {
	return e.Manager == o.manager && e.Operation == o.operation && e.Subresource == ""
}

// claimed returns the fields of live that other managers own and that desired
// has otherwise or, if added, does not have at all.
func claimed(live, desired *unstructured.Unstructured, self ours, added bool) []claim {
	var claims []claim
	for _, e := range live.GetManagedFields() {
		if self.has(e) || e.Subresource == "status" {
			continue
		}
		ownedFields(e).Iterate(func(path fieldpath.Path) {
			if !isManifests(path) {
				return
			}
			have, there := fieldAt(live.Object, path)
			want, asked := fieldAt(desired.Object, path)
			if !there || (!asked && !added) || (asked && contains(have, want, false)) {
				return
			}
			claims = append(claims, claim{path: path.Copy(), manager: e.Manager, scaling: e.Subresource == "scale"})
		})
	}
	return claims
}

// overwritten returns what of live is written over by next, and who wrote it. If
// whole, next takes the place of all that there was.
func overwritten(live, next *unstructured.Unstructured, self ours, whole, zeroIsAbsent bool) []claim {
	claims := claimed(live, next, self, whole)
	rest := next.DeepCopy()
	for _, c := range claims {
		if have, ok := fieldAt(live.Object, c.path); ok {
			withField(rest.Object, c.path, have)
		}
	}
	return append(claims, unclaimed(live, rest, zeroIsAbsent)...)
}

// unclaimed returns the fields of desired that live has otherwise, down to the
// first list on the way to each.
func unclaimed(live, desired *unstructured.Unstructured, zeroIsAbsent bool) []claim {
	var claims []claim
	var compare func(have, want any, path fieldpath.Path)
	compare = func(have, want any, path fieldpath.Path) {
		if len(path) > 0 && !isManifests(path) && path.String() != ".metadata" {
			return
		}
		wanted, ok := want.(map[string]any)
		if !ok || len(wanted) == 0 {
			if !contains(map[string]any{"v": have}, map[string]any{"v": want}, zeroIsAbsent) {
				claims = append(claims, claim{path: path.Copy()})
			}
			return
		}
		fields, _ := have.(map[string]any)
		for name, value := range wanted {
			compare(fields[name], value, append(path.Copy(), fieldpath.PathElement{FieldName: &name}))
		}
	}
	compare(live.Object, desired.Object, nil)
	return claims
}

// ownedFields returns the innermost fields of an entry; none if it cannot be
// read.
func ownedFields(e metav1.ManagedFieldsEntry) *fieldpath.Set {
	set := &fieldpath.Set{}
	if e.FieldsV1 == nil || set.FromJSON(e.FieldsV1.GetRawReader()) != nil {
		return &fieldpath.Set{}
	}
	return set.Leaves()
}

// isManifests says whether a manifest may have the field: all but the status,
// and of the metadata labels and annotations.
func isManifests(path fieldpath.Path) bool {
	first := path[0].FieldName
	switch {
	case first == nil || *first == "status" || *first == "apiVersion" || *first == "kind":
		return false
	case *first != "metadata":
		return true
	case len(path) == 1 || path[1].FieldName == nil:
		return false
	}
	return *path[1].FieldName == "labels" || *path[1].FieldName == "annotations"
}
