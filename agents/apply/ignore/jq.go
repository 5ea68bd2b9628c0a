package ignore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/itchyny/gojq"
)

// A jqPath is an expression whose paths are removed, as del(expression) would.
type jqPath struct{ code *gojq.Code }

// readJQ compiles an expression that only selects. All that makes values is
// refused, for what one step makes can be of any size, and no step can be
// interrupted.
func readJQ(text string) (selector, error) {
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("it is not a jq expression: %w", err)
	}
	if err := checkQuery(query); err != nil {
		return nil, err
	}
	query = &gojq.Query{Term: &gojq.Term{
		Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: "path", Args: []*gojq.Query{query}},
	}}
	code, err := gojq.Compile(query,
		gojq.WithEnvironLoader(func() []string { return nil }),
		gojq.WithFunction(boundedPrefix+"test", 1, 1, testText),
		gojq.WithFunction(boundedPrefix+"contains", 1, 1, containsText),
	)
	if err != nil {
		return nil, fmt.Errorf("it cannot be compiled: %w", err)
	}
	return jqPath{code}, nil
}

// remove finds the paths first, which is where time can go, and removes them
// then, all at once.
func (p jqPath) remove(ctx context.Context, object map[string]any) (err error) {
	input := jqValue(object)
	ctx, cancel := context.WithTimeout(ctx, Budget)
	defer cancel()
	var paths [][]any
	iter := p.code.RunWithContext(ctx, input)
	for {
		v, ok := iter.Next()
		if !ok {
			break
		}
		switch found := v.(type) {
		case error:
			if errors.Is(found, context.DeadlineExceeded) {
				return ErrBudget
			}
			// The library's errors quote values.
			return errors.New("the expression does not select fields of the manifest: check it with jq 'path(...)'")
		case []any:
			path, err := jqSteps(found)
			if err != nil {
				return err
			}
			if paths = append(paths, path); len(paths) > mostPaths {
				return fmt.Errorf("it names more than %d fields", mostPaths)
			}
		}
	}
	return removePaths(object, paths)
}

// jqSteps reads a path as jq writes it, in which a part of a list is an object.
func jqSteps(found []any) ([]any, error) {
	path := make([]any, len(found))
	for i, step := range found {
		switch s := step.(type) {
		case string:
			path[i] = s
		case int, float64:
			path[i] = jqInt(s)
		case map[string]any:
			path[i] = span{jqInt(s["start"]), jqInt(s["end"])}
		default:
			return nil, errors.New("it names a field by what is neither a key nor an index")
		}
	}
	return path, nil
}

func jqInt(v any) any {
	f, ok := v.(float64)
	if !ok {
		return v
	}
	if math.IsNaN(f) || math.Abs(f) > math.MaxInt32 {
		return math.MaxInt32 // No list is that long.
	}
	return int(math.Floor(f))
}

// jqValue copies a value in the types that gojq knows.
func jqValue(v any) any {
	switch have := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(have))
		for key, value := range have {
			out[key] = jqValue(value)
		}
		return out
	case []any:
		out := make([]any, len(have))
		for i, value := range have {
			out[i] = jqValue(value)
		}
		return out
	case nil, bool, string, float64, int:
		return have
	case int64:
		return int(have)
	}
	return nil // Manifests come from JSON, so there is no such value.
}

// boundedPrefix is before the names of our own functions, which take the place of
// those of jq whose cost has no bound.
const boundedPrefix = "bounded_"

// Texts that are searched, and regular expressions, are at most this long.
const mostText, mostPattern = 4096, 256

func testText(v any, args []any) any {
	text, ok := v.(string)
	pattern, isText := args[0].(string)
	if !ok || !isText {
		return errors.New("test needs texts")
	}
	if len(text) > mostText || len(pattern) > mostPattern {
		return errors.New("test is for shorter texts")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	return re.MatchString(text)
}

func containsText(v any, args []any) any {
	text, ok := v.(string)
	part, isText := args[0].(string)
	if !ok || !isText {
		return errors.New("contains needs texts")
	}
	return strings.Contains(text, part)
}
