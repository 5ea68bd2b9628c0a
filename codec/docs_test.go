package codec_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// TestDocumented holds docs/protocol.md against the golden files: the section
// about digests has one example of each event, and all its examples are bodies
// of golden files, long texts apart.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../docs/protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Comparing digests\n")
	if !found {
		t.Fatal("no section about digests")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	golden := map[string]string{}
	for _, file := range []string{"hello", "digest", "match", "buckets", "entries", "presence"} {
		golden[shortened(t, readGolden(t, "testdata/"+file+".json").Payload)] = file
	}
	for _, example := range examples(section) {
		body := shortened(t, []byte(example))
		if _, ok := golden[body]; !ok {
			t.Errorf("an example that is no golden file:\n%s", example)
		}
		delete(golden, body)
	}
	for body, file := range golden {
		t.Errorf("no example is that of %s.json:\n%s", file, body)
	}
	if empty := digest.NewSet(key).Root().String(); !strings.Contains(section, "`"+empty+"`") {
		t.Errorf("the root of an empty set is %s", empty)
	}
	for _, example := range examples(string(text)) {
		if !json.Valid([]byte(example)) {
			t.Errorf("an example that is no JSON:\n%s", example)
		}
	}
	if n := len(examples(string(text))); n < 10 {
		t.Errorf("only %d examples were found", n)
	}
}

// TestConformance computes the golden digests again from the other golden files
// alone, as another implementation would.
func TestConformance(t *testing.T) {
	type body struct {
		Instance digest.Key  `json:"instance"`
		Spec     digest.Root `json:"spec"`
		Status   digest.Root `json:"status"`
		Entries  []struct {
			ID         string         `json:"id"`
			Generation int64          `json:"generation"`
			Deleting   bool           `json:"deleting"`
			Digest     digest.Content `json:"digest"`
			Status     string         `json:"status"`
		} `json:"entries"`
	}
	read := func(file string) body {
		var b body
		if err := json.Unmarshal(readGolden(t, "testdata/"+file+".json").Payload, &b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := read("digest")
	spec, status := digest.NewSet(want.Instance), digest.NewSet(want.Instance)
	for _, file := range []string{"entries", "entries-deleting"} {
		for _, e := range read(file).Entries {
			spec.AddSpec(e.ID, e.Generation, e.Digest, e.Deleting)
			status.AddStatus(e.ID, e.Status)
		}
	}
	work := readGolden(t, "testdata/ocm/spec-create.json")
	text := func(s string) string {
		return string(binary.BigEndian.AppendUint64(nil, uint64(len(s)))) + s
	}
	none := string(make([]byte, 8)) // It has neither labels nor annotations.
	content := digest.Content(sha256.Sum256([]byte(text(string(compact(t, work.Payload))) + text("web-tier") + none + none)))
	if got := read("entries").Entries[0].Digest; got != content {
		t.Errorf("content %s, want %s", got, content)
	}
	if diff := cmp.Diff([]digest.Root{want.Spec, want.Status}, []digest.Root{spec.Root(), status.Root()}); diff != "" {
		t.Errorf("roots (-golden +computed):\n%s", diff)
	}
}

// examples are the blocks of JSON in a page.
func examples(page string) []string {
	var out []string
	for {
		_, rest, found := strings.Cut(page, "```json\n")
		if !found {
			return out
		}
		example, rest, _ := strings.Cut(rest, "```")
		out, page = append(out, example), rest
	}
}

// shortened is a JSON text in one form, with texts over 50 bytes as a page shows
// them: their first and last four characters.
func shortened(t testing.TB, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	var shorten func(v any) any
	shorten = func(v any) any {
		switch v := v.(type) {
		case string:
			if len(v) > 50 {
				return v[:4] + "..." + v[len(v)-4:]
			}
		case []any:
			for i := range v {
				v[i] = shorten(v[i])
			}
		case map[string]any:
			for name := range v {
				v[name] = shorten(v[name])
			}
		}
		return v
	}
	out, err := json.Marshal(shorten(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
