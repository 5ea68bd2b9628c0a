package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseManifests(t *testing.T) {
	const cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	for name, tc := range map[string]struct {
		reason  string
		content string
		want    []string // names
		wantErr string
	}{
		"empty":           {reason: "a file may hold nothing", content: "# nothing\n---\n\n---\n"},
		"null":            {reason: "a document that is null is empty", content: "null\n---\n" + cm, want: []string{"a"}},
		"windows":         {reason: "line ends and a byte order mark do not matter", content: "\xef\xbb\xbf" + strings.ReplaceAll("---\n"+cm, "\n", "\r\n"), want: []string{"a"}},
		"marker in text":  {reason: "an indented marker is text", content: cm + "data:\n  x: |\n    a\n    ---\n    b\n", want: []string{"a"}},
		"after marker":    {reason: "a document may begin on the line of its marker", content: "--- {apiVersion: v1, kind: A, metadata: {name: b}}\n", want: []string{"b"}},
		"flow mapping":    {reason: "YAML may begin with a brace", content: "{apiVersion: v1, kind: A, metadata: {name: b}}\n---\n" + cm, want: []string{"b", "a"}},
		"nested lists":    {reason: "lists are taken apart all the way", content: `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ConfigMapList","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}]}]}`, want: []string{"a"}},
		"duplicate JSON":  {reason: "the same key twice is a mistake in JSON too", content: "{\"apiVersion\": \"v1\",\n\"kind\": \"A\", \"kind\": \"B\"}", wantErr: `f: document 1 (line 1): not valid YAML: line 2: key "kind" already set in map`},
		"third document":  {reason: "line numbers are the file's, empty documents do not count", content: cm + "---\n---\n# c\n\nkind: A\n", wantErr: "f: document 2 (line 8): apiVersion is missing"},
		"list":            {reason: "a list at the top is not a manifest", content: "- a\n", wantErr: "f: document 1 (line 1): a manifest is an object with apiVersion and kind, this is a list"},
		"item":            {reason: "an item of a list is named by its place", content: "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1}]\n", wantErr: "f: document 1 (line 1), item 1: kind is missing"},
		"scalar item":     {reason: "items are objects", content: "apiVersion: v1\nkind: List\nitems: [1]\n", wantErr: "f: document 1 (line 1), item 1: a manifest is an object with apiVersion and kind, this is a number"},
		"nameless":        {reason: "agents apply by name", content: "apiVersion: v1\nkind: A\nmetadata: {}\n", wantErr: "f: document 1 (line 1): metadata.name is missing"},
		"version":         {reason: "the group would be ambiguous", content: "apiVersion: a/b/c\nkind: A\nmetadata: {name: a}\n", wantErr: `f: document 1 (line 1): apiVersion "a/b/c" is not group/version`},
		"type of version": {reason: "an unquoted number is no version", content: "apiVersion: 1\nkind: A\nmetadata: {name: a}\n", wantErr: "f: document 1 (line 1): apiVersion is missing"},
		"deep":            {reason: "nesting is bounded", content: "apiVersion: v1\nkind: A\nmetadata: {name: a}\nx: " + strings.Repeat("[", 300) + strings.Repeat("]", 300), wantErr: "f: document 1 (line 1): nested more than 200 deep"},
		"aliases":         {reason: "an alias bomb is refused, not expanded", content: bomb(), wantErr: "f: document 1 (line 1): not valid YAML: document contains excessive aliasing"},
	} {
		t.Run(name, func(t *testing.T) {
			manifests, err := parseManifests("f", []byte(tc.content))
			if got := fmt.Sprint(err); (err != nil || tc.wantErr != "") && got != tc.wantErr {
				t.Fatalf("%s: error %q, want %q", tc.reason, got, tc.wantErr)
			}
			var got []string
			for _, m := range manifests {
				got = append(got, text(m.Object["metadata"].(map[string]any)["name"]))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	return b.String()
}

func TestReadManifestsLimits(t *testing.T) {
	object := func(name string, size int) string {
		return fmt.Sprintf("apiVersion: v1\nkind: A\nmetadata: {name: %s}\ndata: %q\n", name, strings.Repeat("x", size))
	}
	for name, tc := range map[string]struct {
		reason, stdin, wantErr string
	}{
		"work too large":  {"a work that no API server stores is refused at once", object("a", maxWork/2) + "---\n" + object("b", maxWork/2), "split them over several works"},
		"input too large": {"reading stops at the limit", strings.Repeat("#", maxInput+1), "standard input: more than 8388608 bytes"},
		"same object":     {"two versions of one group are one object", "apiVersion: g/v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: g/v2\nkind: A\nmetadata: {name: a}\n", "standard input: document 2 (line 5): the same object as in standard input: document 1 (line 1)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readManifests([]string{"-"}, strings.NewReader(tc.stdin))
			if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("%s: error %v, want %q", tc.reason, err, tc.wantErr)
			}
		})
	}
}

// FuzzParseManifests: whatever the file holds, parsing ends in manifests that
// can be sent, or in an error of one line that names the file.
func FuzzParseManifests(f *testing.F) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range scripts {
		content, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		for part := range bytes.SplitSeq(content, []byte("\n-- ")) {
			if _, file, ok := bytes.Cut(part, []byte(" --\n")); ok {
				f.Add(file)
			}
		}
	}
	f.Add([]byte(bomb()))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{}]}{"a":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		manifests, err := parseManifests("file", content)
		if err != nil {
			if text := err.Error(); !strings.HasPrefix(text, "file: document ") || strings.Contains(text, "\n") {
				t.Errorf("error %q", text)
			}
			return
		}
		for _, m := range manifests {
			encoded, err := json.Marshal(m.Object)
			if err != nil {
				t.Fatalf("%s does not encode: %v", m.Origin, err)
			}
			again, err := parseManifests("again", encoded)
			if err != nil || len(again) != 1 {
				t.Fatalf("%s read back as %d manifests: %v", m.Origin, len(again), err)
			}
			if diff := cmp.Diff(m.Object, again[0].Object); diff != "" {
				t.Errorf("%s changed by reading it back:\n%s", m.Origin, diff)
			}
		}
	})
}
