package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	// maxInput bounds what is read from all files together.
	maxInput = 8 << 20
	// maxDepth bounds the nesting of a manifest, as the wire does.
	maxDepth = 200
	// maxWork bounds the manifests of one work. An API server stores objects of
	// up to 1.5 MiB, and the status needs room too. The hub's own limit is usually
	// lower; only the hub knows it, and refuses what is over it.
	maxWork = 1 << 20
)

// A manifest is one object to put into a work.
type manifest struct {
	Object map[string]any
	// Origin says where it was read, for messages.
	Origin string
}

// key is what makes a manifest the same object on a cluster.
func (m manifest) key() string {
	group := ""
	if gv, err := schema.ParseGroupVersion(text(m.Object["apiVersion"])); err == nil {
		group = gv.Group
	}
	meta, _ := m.Object["metadata"].(map[string]any)
	return strings.Join([]string{group, text(m.Object["kind"]), text(meta["namespace"]), text(meta["name"])}, "\x00")
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// readManifests reads the manifests of all paths: files, directories (their
// *.yaml, *.yml and *.json files, not those below), and - for stdin. No two may
// describe the same object.
func readManifests(paths []string, stdin io.Reader) ([]manifest, error) {
	var files []string
	for _, p := range paths {
		expanded, err := expand(p)
		if err != nil {
			return nil, err
		}
		files = append(files, expanded...)
	}
	var manifests []manifest
	left, size := maxInput, 0
	seen := map[string]string{}
	for _, file := range files {
		content, err := readCapped(file, stdin, left)
		if err != nil {
			return nil, err
		}
		left -= len(content)
		parsed, err := parseManifests(displayName(file), content)
		if err != nil {
			return nil, err
		}
		for _, m := range parsed {
			if first, ok := seen[m.key()]; ok {
				return nil, fmt.Errorf("%s: the same object as in %s; leave one of them out", m.Origin, first)
			}
			seen[m.key()] = m.Origin
			encoded, err := json.Marshal(m.Object)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Origin, err)
			}
			size += len(encoded)
		}
		manifests = append(manifests, parsed...)
	}
	if len(manifests) == 0 {
		return nil, fmt.Errorf("no manifests in %s", strings.Join(paths, ", "))
	}
	if size > maxWork {
		return nil, fmt.Errorf("the manifests are %d bytes together, and a work holds %d; split them over several works", size, maxWork)
	}
	return manifests, nil
}

func displayName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

func expand(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathError(err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, pathError(err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no .yaml, .yml or .json file in this directory", path)
	}
	return files, nil
}

// pathError puts the path first, as the other messages do.
func pathError(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

func readCapped(file string, stdin io.Reader, limit int) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, pathError(err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, pathError(err)
	}
	if len(content) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes to read in all; a work is far smaller", displayName(file), maxInput)
	}
	return content, nil
}

// parseManifests parses a file of YAML documents or JSON values. Lists are taken
// apart. Errors name the file, the document and the line.
func parseManifests(file string, content []byte) ([]manifest, error) {
	var manifests []manifest
	number := 0
	for _, d := range splitDocuments(content) {
		first, empty := d.first()
		if empty {
			continue
		}
		number++
		origin := fmt.Sprintf("%s: document %d (line %d)", file, number, first)
		object, err := d.parse()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", origin, err)
		}
		if object == nil {
			continue
		}
		if depth(object) > maxDepth {
			return nil, fmt.Errorf("%s: nested more than %d deep", origin, maxDepth)
		}
		found, err := flatten(object, origin)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, found...)
	}
	return manifests, nil
}

// A document is a part of a file, which begins at line (from 1).
type document struct {
	content []byte
	line    int
}

// splitDocuments splits at the document markers of YAML, and concatenated JSON
// at the end of each value.
func splitDocuments(content []byte) []document {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if trimmed := bytes.TrimLeft(content, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		if documents, ok := splitJSON(content); ok {
			return documents
		}
	}
	var documents []document
	start, startLine, line := 0, 1, 0
	for offset := 0; offset < len(content); {
		end := len(content)
		if i := bytes.IndexByte(content[offset:], '\n'); i >= 0 {
			end = offset + i + 1
		}
		line++
		if isMarker(content[offset:end]) {
			documents = append(documents, document{content[start:offset], startLine})
			// What follows the marker on its line belongs to the document.
			start, startLine = offset+len("---"), line
		}
		offset = end
	}
	return append(documents, document{content[start:], startLine})
}

// first returns the first line of the file that holds something of d, unless d
// has nothing but blank lines and comments.
func (d document) first() (line int, empty bool) {
	line = d.line
	for l := range bytes.Lines(d.content) {
		if l = bytes.TrimSpace(l); len(l) > 0 && l[0] != '#' {
			return line, false
		}
		line++
	}
	return line, true
}

func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0])))
}

// splitJSON fails for what is not a sequence of JSON objects: YAML may begin
// with a brace as well.
func splitJSON(content []byte) ([]document, bool) {
	var documents []document
	d := json.NewDecoder(bytes.NewReader(content))
	for {
		var value json.RawMessage
		switch err := d.Decode(&value); {
		case errors.Is(err, io.EOF):
			return documents, true
		case err != nil:
			return nil, false
		}
		start := int(d.InputOffset()) - len(value)
		documents = append(documents, document{value, 1 + bytes.Count(content[:start], []byte("\n"))})
	}
}

// parse returns the object in d, or nil if d is empty.
func (d document) parse() (map[string]any, error) {
	encoded, err := yaml.YAMLToJSONStrict(d.content)
	if err != nil {
		return nil, d.yamlError(err)
	}
	var value any
	// Integers stay integers: float64 would lose the last digits of large ones.
	if err := kjson.UnmarshalCaseSensitivePreserveInts(encoded, &value); err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	default:
		return nil, fmt.Errorf("a manifest is an object with apiVersion and kind, this is %s", kindOf(v))
	}
}

func kindOf(v any) string {
	switch v.(type) {
	case []any:
		return "a list"
	case string:
		return "a text"
	case bool:
		return "a boolean"
	default:
		return "a number"
	}
}

var lineNumber = regexp.MustCompile(`line (\d+)`)

// yamlError makes one line of a parser's error, with line numbers of the file.
func (d document) yamlError(err error) error {
	text := err.Error()
	for _, noise := range []string{"error converting YAML to JSON: ", "yaml: unmarshal errors:", "yaml: "} {
		text = strings.TrimPrefix(text, noise)
	}
	text = lineNumber.ReplaceAllStringFunc(text, func(match string) string {
		n, err := strconv.Atoi(strings.TrimPrefix(match, "line "))
		if err != nil {
			return match
		}
		return fmt.Sprintf("line %d", d.line+n-1)
	})
	return fmt.Errorf("not valid YAML: %s", oneLine(text))
}

func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, field := range v {
			deepest = max(deepest, depth(field))
		}
	case []any:
		for _, item := range v {
			deepest = max(deepest, depth(item))
		}
	default:
		return 0
	}
	return deepest + 1
}

// flatten returns the manifests in object, which is one or a list of them.
func flatten(object map[string]any, origin string) ([]manifest, error) {
	kind := text(object["kind"])
	if items, ok := object["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		var manifests []manifest
		for i, item := range items {
			at := fmt.Sprintf("%s, item %d", origin, i+1)
			o, ok := item.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%s: a manifest is an object with apiVersion and kind, this is %s", at, kindOf(item))
			}
			found, err := flatten(o, at)
			if err != nil {
				return nil, err
			}
			manifests = append(manifests, found...)
		}
		return manifests, nil
	}
	m := manifest{Object: object, Origin: origin}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	// What an API server added to an object that was read back says nothing
	// about the object to make.
	if meta, ok := object["metadata"].(map[string]any); ok {
		for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"} {
			delete(meta, field)
		}
	}
	return []manifest{m}, nil
}

// check requires what every agent needs to know an object.
func (m manifest) check() error {
	version := text(m.Object["apiVersion"])
	if version == "" {
		return errors.New("apiVersion is missing")
	}
	if _, err := schema.ParseGroupVersion(version); err != nil {
		return fmt.Errorf("apiVersion %q is not group/version", version)
	}
	if text(m.Object["kind"]) == "" {
		return errors.New("kind is missing")
	}
	meta, ok := m.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("metadata is missing")
	}
	switch {
	case text(meta["generateName"]) != "":
		return errors.New("metadata.generateName cannot be used in a work, whose objects are applied again and again; give metadata.name only")
	case text(meta["name"]) == "":
		return errors.New("metadata.name is missing")
	default:
		return nil
	}
}
