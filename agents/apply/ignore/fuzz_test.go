package ignore_test

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/agents/apply/ignore"
)

// fuzz holds whatever expression against whatever object: nothing panics or
// hangs, and what comes out holds nothing that did not go in.
func fuzz(f *testing.F, fields func(string) []workv1.IgnoreField, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed, deployment)
	}
	f.Fuzz(func(t *testing.T, text, object string) {
		var c ignore.Compiler
		compiled, err := c.Compile(fields(text))
		if err != nil {
			return
		}
		var have map[string]any
		if utiljson.Unmarshal([]byte(object), &have) != nil || have == nil {
			return
		}
		before := size(have)
		if err := compiled.Remove(t.Context(), have, present); err != nil {
			return
		}
		if _, err := json.Marshal(have); err != nil {
			t.Errorf("what is left is no JSON: %v", err)
		}
		if after := size(have); after > before {
			t.Errorf("%d values became %d", before, after)
		}
	})
}

func size(v any) int {
	n := 1
	switch have := v.(type) {
	case map[string]any:
		for _, value := range have {
			n += size(value)
		}
	case []any:
		for _, value := range have {
			n += size(value)
		}
	}
	return n
}

func FuzzJSONPath(f *testing.F) {
	fuzz(f, func(s string) []workv1.IgnoreField { return paths(s) },
		".spec.replicas", `.spec.template.spec.containers[?(@.name=="sidecar")].image`, `.a['b.c']`, ".spec.*.x", ".a[1:2:1].b", `.a\.b.c`, ".a[?(@.b[?(@.c)])].d")
}

func FuzzPointer(f *testing.F) {
	fuzz(f, func(s string) []workv1.IgnoreField { return pointers(s) },
		"/spec/replicas", "/spec/template/spec/containers/1", "/a~0b/c~1d", "//", "/-")
}

func FuzzJQ(f *testing.F) {
	fuzz(f, func(s string) []workv1.IgnoreField { return jq(s) },
		".spec.replicas", `.. | select(type == "number")`, ".spec.template.spec.containers[1:]", `.a?, .b // .c`,
		`if .spec then .spec.replicas else empty end`, `try .a catch .`, `[..|..]`, `.spec[-1e99]`, `first(..)`)
}

// A field is a way to a value of a generated object.
type field []string

func (f field) pointer() string {
	var b strings.Builder
	for _, key := range f {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}

func (f field) jsonPath() string {
	var b strings.Builder
	for _, key := range f {
		b.WriteString("." + strings.NewReplacer(`.`, `\.`, `/`, `\/`, `~`, `\~`).Replace(key))
	}
	return b.String()
}

func (f field) jq() string {
	var b strings.Builder
	for _, key := range f {
		b.WriteString("." + strconv.Quote(key))
	}
	return b.String()
}

// fieldsOf lists the ways to all values of v.
func fieldsOf(v map[string]any, to field) []field {
	var out []field
	for key, value := range v {
		at := append(slices.Clone(to), key)
		out = append(out, at)
		if below, ok := value.(map[string]any); ok {
			out = append(out, fieldsOf(below, at)...)
		}
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

func drawObject(t *rapid.T, depth int) map[string]any {
	out := make(map[string]any)
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c.d", "e/f", "g~h"}), 1, 4, rapid.ID).Draw(t, "keys") {
		if depth > 0 && rapid.Bool().Draw(t, "nested") {
			out[key] = drawObject(t, depth-1)
		} else {
			out[key] = rapid.Int64().Draw(t, "value")
		}
	}
	return out
}

// Whatever way a field is named in, it goes, another removal changes nothing, and
// no other field is touched.
func TestRemovalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		object := drawObject(t, 3)
		all := fieldsOf(object, nil)
		at := rapid.SampledFrom(all).Draw(t, "field")
		fields := rapid.SampledFrom([][]workv1.IgnoreField{
			pointers(at.pointer()), paths(at.jsonPath()), jq(at.jq()),
		}).Draw(t, "expression")
		var c ignore.Compiler
		f, err := c.Compile(fields)
		if err != nil {
			t.Fatal(err)
		}
		for _, time := range []string{"once", "twice"} {
			if err := f.Remove(t.Context(), object, present); err != nil {
				t.Fatal(err)
			}
			var want []field
			for _, other := range all {
				if len(other) < len(at) || !slices.Equal(other[:len(at)], at) {
					want = append(want, other)
				}
			}
			if diff := cmp.Diff(want, fieldsOf(object, nil)); diff != "" {
				t.Errorf("fields after it was removed %s (-want +got):\n%s", time, diff)
			}
		}
	})
}
