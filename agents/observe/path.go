package observe

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/util/jsonpath"
)

const (
	// mostPath is the length of a path in bytes.
	mostPath = 1024
	// mostBranches bounds the unions of a path, multiplied: each repeats what
	// stands before it.
	mostBranches = 16
	// mostResults bounds what one path may find.
	mostResults = 1000
	// deepest bounds the objects that are searched at any depth.
	deepest = 100
)

// A shape is what the parts of a path make of the work to follow it. Without
// unions and descents no path meets a value twice.
type shape struct {
	branches, descents int
	unordered          bool
}

// follow returns what a path finds, nothing if a key is missing. The path is
// kubectl's, with or without the braces around it.
func follow(path string, object map[string]any) (found []any, err error) {
	defer func() {
		if p := recover(); p != nil { // The library takes some paths for granted.
			found, err = nil, errors.New("the path does not fit the object")
		}
	}()
	if len(path) > mostPath {
		return nil, fmt.Errorf("the path has %d bytes, at most %d are allowed", len(path), mostPath)
	}
	if !strings.HasPrefix(path, "{") || !strings.HasSuffix(path, "}") {
		path = "{" + path + "}"
	}
	s, err := judge(path)
	if err != nil {
		return nil, err
	}
	if s.descents > 0 && !shallow(object, deepest) {
		return nil, fmt.Errorf("the object nests deeper than %d levels, too deep to descend", deepest)
	}
	j := jsonpath.New("feedback").AllowMissingKeys(true)
	if err := j.Parse(path); err != nil {
		return nil, fmt.Errorf("the path cannot be parsed: %w", err)
	}
	results, err := j.FindResults(object)
	if err != nil {
		return nil, fmt.Errorf("the path cannot be followed: %s", outline(err))
	}
	if len(results) == 0 {
		return nil, nil
	}
	if len(results[0]) > mostResults {
		return nil, fmt.Errorf("the path finds %d values, at most %d are allowed", len(results[0]), mostResults)
	}
	for _, r := range results[0] {
		if !r.CanInterface() {
			return nil, errors.New("the path does not fit the object")
		}
		found = append(found, r.Interface())
	}
	if s.unordered && len(found) > 1 {
		sortJSON(found)
	}
	return found, nil
}

// outline cuts off what an error of the library quotes of the object.
func outline(err error) string {
	text := err.Error()
	if strings.HasSuffix(text, "is not array or slice and cannot be filtered") {
		return "a filter is applied to what is no list"
	}
	return clip(text)
}

// judge parses a path and refuses one that would take more time or memory than
// a few looks at the whole object.
func judge(path string) (shape, error) {
	parser, err := jsonpath.Parse("feedback", path)
	if err != nil {
		return shape{}, fmt.Errorf("the path cannot be parsed: %w", err)
	}
	s := shape{branches: 1}
	if err := s.add(parser.Root); err != nil {
		return shape{}, err
	}
	return s, nil
}

func (s *shape) add(node jsonpath.Node) error {
	var children []*jsonpath.ListNode
	switch n := node.(type) {
	case *jsonpath.ListNode:
		for _, child := range n.Nodes {
			if err := s.add(child); err != nil {
				return err
			}
		}
	case *jsonpath.FilterNode:
		children = []*jsonpath.ListNode{n.Left, n.Right}
	case *jsonpath.UnionNode:
		if s.branches *= max(1, len(n.Nodes)); s.branches > mostBranches {
			return fmt.Errorf("the unions of the path have more than %d branches", mostBranches)
		}
		children = n.Nodes
	case *jsonpath.RecursiveNode:
		s.unordered = true
		if s.descents++; s.descents > 1 {
			return errors.New("the path descends more than once: only one \"..\" is allowed")
		}
	case *jsonpath.WildcardNode:
		s.unordered = true
	case *jsonpath.IdentifierNode:
		return fmt.Errorf("the path holds %.32q, which prints values but names none", n.Name)
	}
	for _, child := range children {
		if child == nil {
			continue
		}
		if err := s.add(child); err != nil {
			return err
		}
	}
	return nil
}

// shallow says whether value nests no deeper than levels.
func shallow(value any, levels int) bool {
	if levels == 0 {
		return false
	}
	switch v := value.(type) {
	case map[string]any:
		for _, child := range v {
			if !shallow(child, levels-1) {
				return false
			}
		}
	case []any:
		for _, child := range v {
			if !shallow(child, levels-1) {
				return false
			}
		}
	}
	return true
}

// sortJSON gives an order to values that were found in maps, which have none:
// the same object must always say the same.
func sortJSON(values []any) {
	type keyed struct {
		key   string
		value any
	}
	sorted := make([]keyed, len(values))
	for i, value := range values {
		raw, err := json.Marshal(value)
		if err != nil {
			raw = nil // Not from JSON; there is no such value in an object.
		}
		sorted[i] = keyed{string(raw), value}
	}
	slices.SortStableFunc(sorted, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	for i := range sorted {
		values[i] = sorted[i].value
	}
}
