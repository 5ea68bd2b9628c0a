package cli

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// masked stands in for what a Secret holds.
const masked = "***"

// mask replaces in the work u everything that repeats the data of a Secret: the
// Secret manifests, what kubectl recorded of them in annotations, and values fed
// back from them. It changes u, and returns whether there was anything.
func mask(u *unstructured.Unstructured) bool {
	manifests, _, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "workload", "manifests")
	found := maskSecrets(manifests)
	status, _, _ := unstructured.NestedFieldNoCopy(u.Object, "status", "resourceStatus", "manifests")
	for _, m := range asList(status) {
		found = maskFeedback(m) || found
	}
	if found {
		// kubectl apply keeps a copy of the whole work here.
		maskLastApplied(u.Object)
	}
	return found
}

// maskSecrets looks for Secrets at any depth: lists, and works that carry works,
// hold them as well.
func maskSecrets(v any) bool {
	found := false
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			found = maskSecrets(item) || found
		}
	case map[string]any:
		switch v["kind"] {
		case "Secret":
			maskData(v)
			found = true
		case "SecretList":
			// Items of a typed list need not say their kind.
			for _, item := range asList(v["items"]) {
				maskData(item)
			}
			found = true
		default:
			for _, field := range v {
				found = maskSecrets(field) || found
			}
		}
		if found {
			maskLastApplied(v)
		}
	}
	return found
}

func maskData(secret any) {
	s, ok := secret.(map[string]any)
	if !ok {
		return
	}
	for _, field := range []string{"data", "stringData"} {
		if values, ok := s[field].(map[string]any); ok {
			for key := range values {
				values[key] = masked
			}
		} else if s[field] != nil {
			s[field] = masked
		}
	}
	maskLastApplied(s)
}

func maskFeedback(manifest any) bool {
	m, ok := manifest.(map[string]any)
	if !ok {
		return false
	}
	kind, _, _ := unstructured.NestedString(m, "resourceMeta", "kind")
	values, _, _ := unstructured.NestedFieldNoCopy(m, "statusFeedback", "values")
	if kind != "Secret" || len(asList(values)) == 0 {
		return false
	}
	for _, v := range asList(values) {
		if value, ok := v.(map[string]any); ok {
			value["fieldValue"] = map[string]any{"type": "String", "string": masked}
		}
	}
	return true
}

func maskLastApplied(object map[string]any) {
	annotations, _, _ := unstructured.NestedFieldNoCopy(object, "metadata", "annotations")
	if a, ok := annotations.(map[string]any); ok && a[corev1.LastAppliedConfigAnnotation] != nil {
		a[corev1.LastAppliedConfigAnnotation] = masked
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}
