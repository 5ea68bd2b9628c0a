package apply

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// fieldAt returns what v has at path, and whether it has anything there. Paths
// are those of managed fields: elements of lists are found by their keys.
func fieldAt(v any, path fieldpath.Path) (any, bool) {
	for _, step := range path {
		if step.FieldName != nil {
			fields, _ := v.(map[string]any)
			below, ok := fields[*step.FieldName]
			if !ok {
				return nil, false
			}
			v = below
			continue
		}
		list, _ := v.([]any)
		i := elementOf(list, step)
		if i < 0 {
			return nil, false
		}
		v = list[i]
	}
	return v, true
}

// withField returns v with a copy of what is to be at path, and what is missing
// on the way there. What is in the way stays. It changes v.
func withField(v any, path fieldpath.Path, content any) any {
	if len(path) == 0 {
		return runtime.DeepCopyJSONValue(content)
	}
	step, rest := path[0], path[1:]
	if step.FieldName != nil {
		fields, ok := v.(map[string]any)
		if !ok {
			if v != nil {
				return v
			}
			fields = make(map[string]any)
		}
		fields[*step.FieldName] = withField(fields[*step.FieldName], rest, content)
		return fields
	}
	list, ok := v.([]any)
	if !ok && v != nil {
		return v
	}
	if i := elementOf(list, step); i >= 0 {
		list[i] = withField(list[i], rest, content)
		return list
	}
	switch {
	case step.Key != nil:
		element := make(map[string]any, len(*step.Key))
		for _, key := range *step.Key {
			element[key.Name] = key.Value.Unstructured()
		}
		return append(list, withField(element, rest, content))
	case step.Value != nil:
		return append(list, (*step.Value).Unstructured())
	}
	return v
}

// withoutField returns v without what it has at path. It changes v.
func withoutField(v any, path fieldpath.Path) any {
	if len(path) == 0 {
		return nil
	}
	step, rest := path[0], path[1:]
	if step.FieldName != nil {
		fields, _ := v.(map[string]any)
		below, ok := fields[*step.FieldName]
		switch {
		case ok && len(rest) == 0:
			delete(fields, *step.FieldName)
		case ok:
			fields[*step.FieldName] = withoutField(below, rest)
		}
		return v
	}
	list, _ := v.([]any)
	i := elementOf(list, step)
	switch {
	case i >= 0 && len(rest) == 0:
		return slices.Delete(list, i, i+1)
	case i >= 0:
		list[i] = withoutField(list[i], rest)
	}
	return v
}

// elementOf returns the index of the element that a step means, -1 if there is
// none.
func elementOf(list []any, step fieldpath.PathElement) int {
	switch {
	case step.Key != nil:
		return slices.IndexFunc(list, func(element any) bool {
			fields, ok := element.(map[string]any)
			if !ok {
				return false
			}
			for _, key := range *step.Key {
				have, ok := fields[key.Name]
				if !ok || !value.Equals(value.NewValueInterface(have), key.Value) {
					return false
				}
			}
			return true
		})
	case step.Value != nil:
		return slices.IndexFunc(list, func(element any) bool {
			return value.Equals(value.NewValueInterface(element), *step.Value)
		})
	case step.Index != nil && *step.Index >= 0 && *step.Index < len(list):
		return *step.Index
	}
	return -1
}
