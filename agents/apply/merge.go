package apply

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// toCreate returns the object to create for a manifest.
func toCreate(m *manifest, owner metav1.OwnerReference) *unstructured.Unstructured {
	rule := kindRules[m.gvk().GroupKind()]
	u := m.object.DeepCopy()
	if rule.keep != nil {
		rule.keep(u.Object, nil)
	}
	u.SetLabels(mergeMap(nil, u.GetLabels()))
	annotations := mergeMap(nil, u.GetAnnotations())
	if rule.tracksHash() {
		annotations = mergeMap(annotations, map[string]string{api.SpecHashAnnotation: m.sum})
	}
	u.SetAnnotations(annotations)
	if m.option.owned {
		u.SetOwnerReferences([]metav1.OwnerReference{owner})
	}
	return u
}

// toUpdate returns the object to put in place of live for it to be as the
// manifest says, or nil if it is.
//
// Labels, annotations and owners are merged. Everything else is left alone as
// long as live contains it and the manifest is the one that was applied last;
// of a new manifest the whole object is put, so that what the manifest dropped
// goes.
func toUpdate(live *unstructured.Unstructured, m *manifest, owner metav1.OwnerReference) *unstructured.Unstructured {
	rule := kindRules[m.gvk().GroupKind()]
	desired := m.object.DeepCopy()
	if rule.keep != nil {
		rule.keep(desired.Object, live.Object)
	}
	annotations := desired.GetAnnotations()
	replace := !rule.metadataOnly && !holds(live.Object, desired.Object, rule, builtIn(m.meta.Group))
	if rule.tracksHash() {
		annotations = mergeMap(annotations, map[string]string{api.SpecHashAnnotation: m.sum})
		replace = replace || live.GetAnnotations()[api.SpecHashAnnotation] != m.sum
	}
	labels := mergeMap(live.GetLabels(), desired.GetLabels())
	annotations = mergeMap(live.GetAnnotations(), annotations)
	owners := withOwner(live.GetOwnerReferences(), owner, m.option.owned)
	if !replace && maps.Equal(labels, live.GetLabels()) && maps.Equal(annotations, live.GetAnnotations()) &&
		slices.EqualFunc(owners, live.GetOwnerReferences(), sameOwner) {
		return nil
	}

	out := live.DeepCopy()
	if replace {
		content := desired.Object
		for _, field := range []string{"metadata", "status"} {
			delete(content, field)
			if have, ok := out.Object[field]; ok {
				content[field] = have
			}
		}
		out.Object = content
	}
	out.SetLabels(labels)
	out.SetAnnotations(annotations)
	out.SetOwnerReferences(owners)
	return out
}

// holds compares everything but metadata and status.
func holds(live, desired map[string]any, rule kindRule, zeroIsAbsent bool) bool {
	for _, path := range rule.exact {
		have, _, _ := unstructured.NestedFieldNoCopy(live, path...)
		want, _, _ := unstructured.NestedFieldNoCopy(desired, path...)
		if !equal(have, want, zeroIsAbsent && !rule.emptyCounts) {
			return false
		}
	}
	for field, want := range desired {
		switch field {
		case "apiVersion", "kind", "metadata", "status":
			continue
		}
		if !contains(map[string]any{field: live[field]}, map[string]any{field: want}, zeroIsAbsent) {
			return false
		}
	}
	return true
}

// mergeMap returns have with the entries of want. A key of want that ends in a
// hyphen removes the key without it.
func mergeMap(have, want map[string]string) map[string]string {
	out := make(map[string]string, len(have)+len(want))
	maps.Copy(out, have)
	for key, value := range want {
		if name, remove := strings.CutSuffix(key, "-"); remove {
			delete(out, name)
		} else {
			out[key] = value
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func sameOwner(a, b metav1.OwnerReference) bool {
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion
}
