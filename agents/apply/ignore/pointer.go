package ignore

import (
	"context"
	"errors"
	"strconv"
	"strings"
)

// A pointer is a JSON Pointer (RFC 6901), in its parts.
type pointer []string

func readPointer(text string) (selector, error) {
	if text == "" {
		return nil, errWhole
	}
	if !strings.HasPrefix(text, "/") {
		return nil, errors.New("a JSON Pointer begins with a slash")
	}
	parts := strings.Split(text[1:], "/")
	for i, part := range parts {
		unescaped := strings.NewReplacer("~0", "", "~1", "").Replace(part)
		if strings.Contains(unescaped, "~") {
			return nil, errors.New("a ~ that is meant is written ~0, and a slash ~1")
		}
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
	}
	return pointer(parts), nil
}

func (p pointer) remove(_ context.Context, object map[string]any) error {
	path := make([]any, 0, len(p))
	var v any = object
	for _, part := range p {
		switch have := v.(type) {
		case map[string]any:
			path = append(path, part)
			v = have[part]
		case []any:
			i, ok := listIndex(part, len(have))
			if !ok {
				return nil
			}
			path = append(path, i)
			v = have[i]
		default:
			return nil
		}
	}
	return removePaths(object, [][]any{path})
}

// listIndex reads an index as RFC 6901 has it: digits without a leading zero.
func listIndex(part string, n int) (int, bool) {
	i, err := strconv.Atoi(part)
	return i, err == nil && i >= 0 && i < n && strconv.Itoa(i) == part
}
