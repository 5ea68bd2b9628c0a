package ignore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/client-go/util/jsonpath"
)

// A jsonPath is a path in the syntax of kubectl that ends in a key of a map.
type jsonPath struct {
	parent string // Template of the maps that have the key; empty for the object itself.
	key    string
}

var errRecursive = errors.New("recursive descent (..) is refused: name the way to the field, or use jqPathExpressions")

var errNoKey = errors.New("it does not end in a key of a map, and nothing else can be removed with a JSONPath; " +
	"jqPathExpressions can remove elements of lists")

// readJSONPath splits the path before its last step. Recursive descent and
// unions are refused: they can name one field any number of times.
func readJSONPath(text string) (selector, error) {
	path := strings.TrimSpace(text)
	if inner, ok := strings.CutPrefix(path, "{"); ok {
		if path, ok = strings.CutSuffix(inner, "}"); !ok {
			return nil, errors.New("the brace is not closed")
		}
	}
	path = strings.TrimPrefix(path, "$")
	if path != "" && path[0] != '.' && path[0] != '[' {
		path = "." + path
	}
	parent, last, err := cutLast(path)
	if err != nil {
		return nil, err
	}
	key, err := readKey(last)
	if err != nil {
		return nil, err
	}
	if parent == "" {
		return jsonPath{key: key}, nil
	}
	if strings.HasSuffix(parent, ".") {
		return nil, errRecursive
	}
	parsed, err := jsonpath.Parse("ignored", "{"+parent+"}")
	if err != nil {
		return nil, fmt.Errorf("it is not a JSONPath: %w", err)
	}
	if err := checkNodes(parsed.Root, true); err != nil {
		return nil, err
	}
	return jsonPath{parent: "{" + parent + "}", key: key}, nil
}

// cutLast cuts a path before its last dot or bracket that is not part of a
// bracket, a quoted text, or a key.
func cutLast(path string) (parent, last string, err error) {
	at, depth := -1, 0
	var quote byte
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case depth > 0 && (c == '\'' || c == '"'):
			quote = c
		case c == '[':
			if depth == 0 {
				at = i
			}
			depth++
		case c == ']':
			depth--
		case c == '.' && depth == 0:
			at = i
		case c == '{' || c == '}':
			if depth == 0 {
				return "", "", errors.New("it has braces within")
			}
		}
		if depth < 0 {
			return "", "", errors.New("a bracket is closed that was not opened")
		}
	}
	if quote != 0 || depth != 0 {
		return "", "", errors.New("a bracket or a quotation is not closed")
	}
	if at < 0 {
		return "", "", errWhole
	}
	return path[:at], path[at:], nil
}

// readKey reads the last step: .key, with a backslash before what is meant
// literally, or ['key'].
func readKey(step string) (string, error) {
	if name, ok := strings.CutPrefix(step, "."); ok {
		if name == "" || strings.Contains(name, "*") {
			return "", errNoKey
		}
		var key strings.Builder
		for i := 0; i < len(name); i++ {
			if name[i] == '\\' && i+1 < len(name) {
				i++
			}
			key.WriteByte(name[i])
		}
		return key.String(), nil
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(step, "["), "]")
	const quotes = 2
	if len(inner) <= quotes || inner[0] != inner[len(inner)-1] || (inner[0] != '\'' && inner[0] != '"') {
		return "", errNoKey
	}
	key := inner[1 : len(inner)-1]
	if strings.ContainsAny(key, `'"\`) {
		return "", errNoKey
	}
	return key, nil
}

// checkNodes refuses what makes the cost of a path grow faster than the object.
// The top level is the list of templates, which holds one.
func checkNodes(list *jsonpath.ListNode, top bool) error {
	for _, node := range list.Nodes {
		var err error
		switch n := node.(type) {
		case *jsonpath.RecursiveNode:
			return errRecursive
		case *jsonpath.UnionNode:
			return errors.New("a union of keys is refused: write a path for each")
		case *jsonpath.IdentifierNode:
			return errors.New("range, end and other words are refused")
		case *jsonpath.TextNode:
			if top {
				return errors.New("it has text beside the path")
			}
		case *jsonpath.ListNode:
			err = checkNodes(n, false)
		case *jsonpath.FilterNode:
			if err = checkNodes(n.Left, false); err == nil {
				err = checkNodes(n.Right, false)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p jsonPath) remove(ctx context.Context, object map[string]any) error {
	if p.parent == "" {
		delete(object, p.key)
		return nil
	}
	// The parser keeps the state of its last run.
	found := jsonpath.New("ignored").AllowMissingKeys(true)
	if err := found.Parse(p.parent); err != nil {
		return errors.New("it is not a JSONPath")
	}
	results, err := found.FindResults(object)
	if err != nil {
		// The library's errors quote values.
		return errors.New("the path does not fit the manifest: check it with kubectl get -o jsonpath")
	}
	for _, result := range results {
		if len(result) > mostPaths {
			return fmt.Errorf("it names %d fields, at most %d are allowed", len(result), mostPaths)
		}
		for _, v := range result {
			if !v.IsValid() || !v.CanInterface() {
				continue
			}
			if parent, ok := reflect.TypeAssert[map[string]any](v); ok {
				delete(parent, p.key)
			}
		}
	}
	return ctx.Err()
}
