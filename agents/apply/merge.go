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
// Labels, annotations and owners are merged. Everything else is put as a whole
// if judged says so, or if the manifest is not the one that was applied last, so
// that what the manifest dropped goes.
func toUpdate(live *unstructured.Unstructured, m *manifest, owner metav1.OwnerReference, judged judgement, known memory) *unstructured.Unstructured {
	rule := kindRules[m.gvk().GroupKind()]
	desired := m.object.DeepCopy()
	if rule.keep != nil {
		rule.keep(desired.Object, live.Object)
	}
	known.cede(desired, live)
	annotations := desired.GetAnnotations()
	replace := !rule.metadataOnly && !judged(live.Object, desired.Object, rule)
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

// A judgement says whether the content of live, without metadata and status, may
// stay as it is.
type judgement func(live, desired map[string]any, rule kindRule) bool

// strictly accepts what holds every value of the manifest, zeros as well.
func strictly(live, desired map[string]any, rule kindRule) bool {
	return holds(live, desired, rule, false)
}

// leniently lets zero values be absent in types that do not store them.
func leniently(group string) judgement {
	return func(live, desired map[string]any, rule kindRule) bool {
		return holds(live, desired, rule, builtIn(group))
	}
}

// always and never go without a look at the content.
func always(_, _ map[string]any, _ kindRule) bool { return true }
func never(_, _ map[string]any, _ kindRule) bool  { return false }

// holds compares everything but metadata and status.
func holds(live, desired map[string]any, rule kindRule, zeroIsAbsent bool) bool {
	for _, path := range rule.exact {
		have, _, _ := unstructured.NestedFieldNoCopy(live, path...)
		want, _, _ := unstructured.NestedFieldNoCopy(desired, path...)
		if !equal(have, want, zeroIsAbsent && !rule.emptyCounts) {
			return false
		}
	}
	if rule.same != nil && !rule.same(live, desired) {
		return false
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
