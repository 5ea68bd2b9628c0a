package ignore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply/ignore"
)

const (
	present = workv1.IgnoreFieldsConditionOnSpokePresent
	change  = workv1.IgnoreFieldsConditionOnSpokeChange
)

const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop",
	"annotations":{"example.com/a.b":"1","tilde~slash/x":"2"}},
	"spec":{"replicas":2,"template":{"spec":{"containers":[
		{"name":"main","image":"main:1","resources":{"limits":{"cpu":"1"}}},
		{"name":"sidecar","image":"sidecar:1"}],"volumes":[]}}}}`

func fromJSON(t testing.TB, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := utiljson.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func pointers(texts ...string) []workv1.IgnoreField {
	return []workv1.IgnoreField{{JSONPointers: texts}}
}

func paths(texts ...string) []workv1.IgnoreField {
	return []workv1.IgnoreField{{JSONPaths: texts}}
}

func jq(texts ...string) []workv1.IgnoreField {
	return []workv1.IgnoreField{{JQPathExpressions: texts}}
}

func TestRemove(t *testing.T) {
	for _, tt := range []struct {
		reason string
		fields []workv1.IgnoreField
		// gone is what is taken out of the deployment's JSON, nothing if empty.
		gone string
		// instead is what is there for it.
		instead string
	}{
		{"a key by pointer", pointers("/spec/replicas"), `"replicas":2,`, ""},
		{"escaped keys by pointer", pointers("/metadata/annotations/tilde~0slash~1x"), `,"tilde~slash/x":"2"`, ""},
		{"an element of a list by pointer", pointers("/spec/template/spec/containers/1"), `,
		{"name":"sidecar","image":"sidecar:1"}`, ""},
		{"two elements of a list by pointer", pointers("/spec/template/spec/containers/1/image", "/spec/template/spec/containers/1/name"), `{"name":"sidecar","image":"sidecar:1"}`, "{}"},
		{"a missing path by pointer", pointers("/spec/nothing/here", "/spec/replicas/x", "/spec/template/spec/containers/01", "/spec/template/spec/containers/7", "/spec/template/spec/containers/-"), "", ""},
		{"a key by JSONPath", paths(".spec.replicas"), `"replicas":2,`, ""},
		{"in braces, and from the root", paths("{$.spec.replicas}"), `"replicas":2,`, ""},
		{"without a dot at the beginning", paths("spec.replicas"), `"replicas":2,`, ""},
		{"a field of the object itself", paths(".spec"), deployment[strings.Index(deployment, `"spec"`)-3 : len(deployment)-1], ""},
		{"a key with dots by JSONPath", paths(`.metadata.annotations.example\.com/a\.b`), `"example.com/a.b":"1",`, ""},
		{"a key with dots in brackets", paths(`.metadata.annotations['example.com/a.b']`), `"example.com/a.b":"1",`, ""},
		{"of the element that a filter finds", paths(`.spec.template.spec.containers[?(@.name=="sidecar")].image`), `,"image":"sidecar:1"`, ""},
		{"of an element by index", paths(`.spec.template.spec.containers[1].image`), `,"image":"sidecar:1"`, ""},
		{"a missing path by JSONPath", paths(".spec.nothing.here", ".spec.replicas.x"), "", ""},
		{"a key by jq", jq(".spec.replicas"), `"replicas":2,`, ""},
		{"an element by jq", jq(`.spec.template.spec.containers[] | select(.name == "sidecar")`), `,
		{"name":"sidecar","image":"sidecar:1"}`, ""},
		{"by a pattern", jq(`.spec.template.spec.containers[] | select(.name | test("^side")) | .image`), `,"image":"sidecar:1"`, ""},
		{"the last element", jq(".spec.template.spec.containers[-1]"), `,
		{"name":"sidecar","image":"sidecar:1"}`, ""},
		{"a part of a list", jq(".spec.template.spec.containers[1:]"), `,
		{"name":"sidecar","image":"sidecar:1"}`, ""},
		{"several by jq", jq(".spec.replicas, .spec.template.spec.volumes"), "several", ""},
		{"a missing path by jq", jq(".spec.nothing.here", ".spec.template.spec.containers[9]"), "", ""},
		{"nothing selected by jq", jq("empty"), "", ""},
		{"another condition's fields", []workv1.IgnoreField{{Condition: change, JSONPointers: []string{"/spec/replicas"}}}, "", ""},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			var c ignore.Compiler
			f, err := c.Compile(tt.fields)
			if err != nil {
				t.Fatal(err)
			}
			got := fromJSON(t, deployment)
			if err := f.Remove(t.Context(), got, present); err != nil {
				t.Fatal(err)
			}
			left := deployment
			if tt.gone == "several" {
				left = strings.Replace(strings.Replace(left, `"replicas":2,`, "", 1), `,"volumes":[]`, "", 1)
			} else if tt.gone != "" {
				if !strings.Contains(left, tt.gone) {
					t.Fatalf("the case is wrong: no %s", tt.gone)
				}
				left = strings.Replace(left, tt.gone, tt.instead, 1)
			}
			if diff := cmp.Diff(fromJSON(t, left), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		reason string
		fields []workv1.IgnoreField
		says   string
	}{
		{"a condition of another version", []workv1.IgnoreField{{Condition: "OnTuesday"}}, "OnTuesday"},
		{"the whole object by pointer", pointers(""), "whole object"},
		{"a pointer without a slash", pointers("spec/replicas"), "begins with a slash"},
		{"a tilde that is nothing", pointers("/a~2b"), "~0"},
		{"an index at the end of a JSONPath", paths(".spec.containers[0]"), "jqPathExpressions"},
		{"an asterisk at the end of a JSONPath", paths(".spec.*"), "key of a map"},
		{"a filter at the end of a JSONPath", paths(`.spec.containers[?(@.name=="x")]`), "key of a map"},
		{"a JSONPath of nothing", paths("{}"), "whole object"},
		{"recursive descent", paths("..image"), "recursive descent"},
		{"recursive descent on the way", paths(".spec..x.image"), "recursive descent"},
		{"a union", paths(".spec['a','b'].image"), "union"},
		{"a loop", paths("{range .items[*]}{.a.b}"), "braces"},
		{"a bracket left open", paths(".spec[0.image"), "not closed"},
		{"a bracket too many", paths(".spec]0.image"), "not opened"},
		{"no jq at all", jq(".spec["), "not a jq expression"},
		{"jq that makes values", jq(".spec.replicas + 1"), "operator +"},
		{"jq that changes values", jq(".spec.replicas = 1"), "operator ="},
		{"jq that deletes", jq("del(.spec.replicas)"), "del/1"},
		{"the environment", jq("env"), "env/0"},
		{"the environment as a variable", jq(".spec | $ENV"), "$ENV"},
		{"more input", jq("input"), "input/0"},
		{"the end of the process", jq("halt"), "halt/0"},
		{"output", jq("debug"), "debug/0"},
		{"endless values", jq("repeat(.)"), "repeat/1"},
		{"own functions", jq("def f: f; f"), "definitions"},
		{"variables", jq(". as $x | .spec"), "variables"},
		{"texts put together", jq(`.["\(.spec)"]`), "not a number or a text"},
		{"modules", jq(`import "a" as a; .spec`), "modules"},
		{"loops", jq("reduce .spec as $x (.; .)"), "reduce"},
		{"an unbounded pattern by its own name", jq(`bounded_test("x")`), "bounded_test/1"},
		{"a computed index", jq(".spec[.a]"), "index"},
		{"an expression that is too long", jq(strings.Repeat(" ", 1025)), "1024"},
		{"too many expressions", pointers(make([]string, 65)...), "whole object"},
		{"too many expressions that can be read", pointers(strings.Split(strings.Repeat("/a ", 64)+"/a", " ")...), "more than 64"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			var c ignore.Compiler
			_, err := c.Compile(tt.fields)
			if err == nil {
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

func TestRemoveRefuses(t *testing.T) {
	for _, tt := range []struct {
		reason string
		fields []workv1.IgnoreField
		says   string
	}{
		{"the whole object by jq", jq("."), "whole object"},
		{"everything, one by one", jq(".[]"), "which object is meant"},
		{"the name", pointers("/metadata/name"), "which object is meant"},
		{"all metadata", paths(".metadata"), "which object is meant"},
		{"what is no path", jq(`.spec.replicas | tostring`), "does not select fields"},
		{"what does not fit", jq(`.metadata.name.first`), "does not select fields"},
		{"time", jq(strings.Repeat("..|", 300) + "empty"), ignore.ErrBudget.Error()},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			var c ignore.Compiler
			f, err := c.Compile(tt.fields)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Remove(t.Context(), fromJSON(t, deployment), present)
			if err == nil {
				t.Fatal("it was removed")
			}
			if !strings.Contains(err.Error(), tt.says) && !errors.Is(err, ignore.ErrBudget) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
			if said := err.Error(); strings.Contains(said, "shop") || strings.Contains(said, "main:1") {
				t.Errorf("error %q quotes the manifest", said)
			}
		})
	}
}

func TestRemoveIsBounded(t *testing.T) {
	object := fromJSON(t, deployment)
	many := make(map[string]any)
	for i := range 3000 {
		many[fmt.Sprint(i)] = map[string]any{"x": int64(i)}
	}
	object["many"] = many
	for _, fields := range [][]workv1.IgnoreField{jq(".many[]"), paths(".many.*.x")} {
		var c ignore.Compiler
		f, err := c.Compile(fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Remove(t.Context(), object, present); err == nil {
			t.Errorf("%v removed three thousand fields", fields)
		}
	}
}

func TestNoFields(t *testing.T) {
	var c ignore.Compiler
	f, err := c.Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context(), fromJSON(t, deployment), present); err != nil || f.Sum() != "" {
		t.Errorf("Remove = %v, Sum = %q", err, f.Sum())
	}
}

func TestSumTellsFieldsApart(t *testing.T) {
	var c ignore.Compiler
	one, err := c.Compile(pointers("/a"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Compile(pointers("/a"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Compile(pointers("/b"))
	if err != nil {
		t.Fatal(err)
	}
	if one != again || one.Sum() == other.Sum() {
		t.Error("the same fields are compiled twice, or others count as the same")
	}
}

// What is remembered stays bounded, and what was forgotten is read again.
func TestCompilerIsBounded(t *testing.T) {
	var c ignore.Compiler
	first, err := c.Compile(pointers("/a"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		raw, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Compile(pointers("/x" + string(raw))); err != nil {
			t.Fatal(err)
		}
	}
	again, err := c.Compile(pointers("/a"))
	if err != nil {
		t.Fatal(err)
	}
	if first == again {
		t.Error("a thousand lists later the first is still remembered")
	}
}
