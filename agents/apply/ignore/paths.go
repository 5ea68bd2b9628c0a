package ignore

import (
	"errors"
	"fmt"
)

var errWhole = errors.New("it names the whole object")

// A tree holds the fields to remove: by key where the value is a map, by index
// where it is a list. Several paths are removed at once, so that the removal of
// one element does not move those that others name.
type tree struct {
	gone   bool
	fields map[any]*tree // By string or int.
}

func (t *tree) child(step any) *tree {
	if t.fields == nil {
		t.fields = make(map[any]*tree)
	}
	c := t.fields[step]
	if c == nil {
		c = &tree{}
		t.fields[step] = c
	}
	return c
}

// add takes down a path below v. Steps are strings for maps, and for lists ints,
// of which a negative one counts from the end, or spans. What is not there is
// left out.
func (t *tree) add(v any, path []any) error {
	if len(path) == 0 {
		t.gone = true
		return nil
	}
	switch have := v.(type) {
	case map[string]any:
		key, ok := path[0].(string)
		if !ok {
			return fmt.Errorf("it names an element of a map by a %s", stepKind(path[0]))
		}
		if below, ok := have[key]; ok {
			return t.child(key).add(below, path[1:])
		}
	case []any:
		from, to, ok := indexes(path[0], len(have))
		if !ok {
			return fmt.Errorf("it names an element of a list by a %s", stepKind(path[0]))
		}
		for i := from; i < to; i++ {
			if err := t.child(i).add(have[i], path[1:]); err != nil {
				return err
			}
		}
	}
	return nil
}

func stepKind(step any) string {
	if _, ok := step.(string); ok {
		return "name"
	}
	return "number"
}

// A span is a part of a list, from a first index to one after the last; nil
// means the end of the list.
type span struct{ from, to any }

// indexes returns which elements of a list of n a step means.
func indexes(step any, n int) (from, to int, ok bool) {
	switch s := step.(type) {
	case int:
		if s < 0 {
			s += n
		}
		if s < 0 || s >= n {
			return 0, 0, true
		}
		return s, s + 1, true
	case span:
		from, to = bound(s.from, 0, n), bound(s.to, n, n)
		return from, to, true
	}
	return 0, 0, false
}

func bound(at any, otherwise, n int) int {
	i, ok := at.(int)
	if !ok {
		return otherwise
	}
	if i < 0 {
		i += n
	}
	return min(max(i, 0), n)
}

// prune returns v without what t names.
func (t *tree) prune(v any) any {
	switch have := v.(type) {
	case map[string]any:
		for step, below := range t.fields {
			key, ok := step.(string)
			if !ok {
				continue
			}
			if below.gone {
				delete(have, key)
			} else {
				have[key] = below.prune(have[key])
			}
		}
	case []any:
		left := make([]any, 0, len(have))
		for i, element := range have {
			below := t.fields[i]
			if below == nil {
				left = append(left, element)
			} else if !below.gone {
				left = append(left, below.prune(element))
			}
		}
		return left
	}
	return v
}

// removePaths takes paths out of object, all at once.
func removePaths(object map[string]any, paths [][]any) error {
	var t tree
	for _, path := range paths {
		if len(path) == 0 {
			return errWhole
		}
		if err := t.add(object, path); err != nil {
			return err
		}
	}
	t.prune(object)
	return nil
}
