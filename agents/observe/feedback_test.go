package observe_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

func newObserver(t testing.TB, o observe.Options) *observe.Observer {
	t.Helper()
	observer, err := observe.New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return observer
}

// object reads JSON as a client does: numbers are int64 or float64.
func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	var fields map[string]any
	if err := utiljson.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &unstructured.Unstructured{Object: fields}
}

// said writes values down as name=JSON.
func said(values []workv1.FeedbackValue) []string {
	var out []string
	for _, v := range values {
		text := "?"
		switch v.Value.Type {
		case workv1.Integer:
			raw, _ := json.Marshal(v.Value.Integer)
			text = string(raw)
		case workv1.Boolean:
			raw, _ := json.Marshal(v.Value.Boolean)
			text = string(raw)
		case workv1.String:
			text = `"` + *v.Value.String + `"`
		case workv1.JsonRaw:
			text = "raw " + *v.Value.JsonRaw
		}
		out = append(out, v.Name+"="+text)
	}
	return out
}

func find(t testing.TB, r observe.Result, conditionType string) metav1.Condition {
	t.Helper()
	c := meta.FindStatusCondition(r.Conditions, conditionType)
	if c == nil {
		t.Fatalf("there is no condition %s in %v", conditionType, r.Conditions)
	}
	return *c
}

func paths(pairs ...string) []workv1.FeedbackRule {
	rule := workv1.FeedbackRule{Type: workv1.JSONPathsType}
	for i := 0; i < len(pairs); i += 2 {
		rule.JsonPaths = append(rule.JsonPaths, workv1.JsonPath{Name: pairs[i], Path: pairs[i+1]})
	}
	return []workv1.FeedbackRule{rule}
}

func TestWellKnownStatus(t *testing.T) {
	rules := []workv1.FeedbackRule{{Type: workv1.WellKnownStatusType}}
	for _, c := range []struct {
		reason, object string
		want           []string
		status         metav1.ConditionStatus
	}{
		{
			"a Deployment tells its replicas",
			`{"apiVersion":"apps/v1","kind":"Deployment","status":{"readyReplicas":1,"replicas":2,"availableReplicas":3}}`,
			[]string{"ReadyReplicas=1", "Replicas=2", "AvailableReplicas=3"},
			metav1.ConditionTrue,
		},
		{
			"what is not there yet has no value and is no error",
			`{"apiVersion":"apps/v1","kind":"Deployment","status":{"replicas":2}}`,
			[]string{"Replicas=2"},
			metav1.ConditionTrue,
		},
		{
			"a StatefulSet tells the same, beyond OCM",
			`{"apiVersion":"apps/v1","kind":"StatefulSet","status":{"readyReplicas":1,"replicas":2,"availableReplicas":3}}`,
			[]string{"ReadyReplicas=1", "Replicas=2", "AvailableReplicas=3"},
			metav1.ConditionTrue,
		},
		{
			"a DaemonSet",
			`{"apiVersion":"apps/v1","kind":"DaemonSet","status":{"numberReady":1,"desiredNumberScheduled":2,"numberAvailable":3}}`,
			[]string{"NumberReady=1", "DesiredNumberScheduled=2", "NumberAvailable=3"},
			metav1.ConditionTrue,
		},
		{
			"a Job tells the status of its condition",
			`{"apiVersion":"batch/v1","kind":"Job","status":{"succeeded":1,"conditions":[{"type":"Suspended","status":"False"},{"type":"Complete","status":"True"}]}}`,
			[]string{`JobComplete="True"`, "JobSucceeded=1"},
			metav1.ConditionTrue,
		},
		{
			"a Pod",
			`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","conditions":[{"type":"Ready","status":"False"}]}}`,
			[]string{`PodReady="False"`, `PodPhase="Running"`},
			metav1.ConditionTrue,
		},
		{
			"of other kinds nothing is well known",
			`{"apiVersion":"v1","kind":"ConfigMap","status":{"replicas":2}}`, nil, metav1.ConditionFalse,
		},
		{
			"another version of a kind is another kind",
			`{"apiVersion":"apps/v1beta1","kind":"Deployment","status":{"replicas":2}}`, nil, metav1.ConditionFalse,
		},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got := newObserver(t, observe.Options{}).Observe(t.Context(), object(t, c.object), observe.Rules{Feedback: rules})
			if diff := cmp.Diff(c.want, said(got.Values)); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
			if synced := find(t, got, observe.ConditionFeedback); synced.Status != c.status {
				t.Errorf("StatusFeedbackSynced is %s: %s", synced.Status, synced.Message)
			}
		})
	}
}

const sample = `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"t","labels":{"a.b/c":"slashed"}},
"status":{"count":3,"ok":true,"text":"hello","ratio":0.5,"none":null,"map":{"b":2,"a":1},
"list":[{"name":"first","n":1},{"name":"second","n":2}],"ports":[80,443]}}`

func TestJSONPaths(t *testing.T) {
	raw, plain := observe.Options{RawJSON: true}, observe.Options{}
	for _, c := range []struct {
		reason  string
		options observe.Options
		path    string
		want    string // The value; empty if there is none.
		fails   string // Part of the message; empty if it does not fail.
	}{
		{"an integer", plain, ".status.count", "v=3", ""},
		{"a boolean", plain, ".status.ok", "v=true", ""},
		{"a string", plain, ".status.text", `v="hello"`, ""},
		{"outside of the status, too", plain, ".metadata.name", `v="t"`, ""},
		{"a key with dots", plain, `.metadata.labels.a\.b/c`, `v="slashed"`, ""},
		{"braces of kubectl are taken off", plain, "{.status.count}", "v=3", ""},
		{"a filter", plain, `.status.list[?(@.name=="second")].n`, "v=2", ""},
		{"only the first result counts", plain, ".status.list[*].name", `v="first"`, ""},
		{"the last of a list", plain, ".status.ports[-1:]", "v=443", ""},
		{"a union", plain, ".status['text','count']", `v="hello"`, ""},
		{"a descent", plain, "..ratio..", "", "more than once"},
		{"a map has no order, so what is found in it gets one", plain, ".status.map.*", "v=1", ""},
		{"a missing key is no error", plain, ".status.absent.deeper", "", ""},
		{"neither is null", plain, ".status.none", "", ""},
		{"an index out of bounds is one", plain, ".status.ports[7]", "", "out of bounds"},
		{"a number with a fraction is none of the types", plain, ".status.ratio", "", "fraction"},
		{"nor is an object", plain, ".status.map", "", "RawFeedbackJsonString"},
		{"nor a list", plain, ".status.ports", "", "a list"},
		{"a fraction as raw JSON", raw, ".status.ratio", "v=raw 0.5", ""},
		{"an object as raw JSON", raw, ".status.map", `v=raw {"a":1,"b":2}`, ""},
		{"several results as raw JSON", raw, ".status.list[*].n", "v=raw [1,2]", ""},
		{"one result stays what it is", raw, ".status.list[0].n", "v=1", ""},
		{"too long for raw JSON", observe.Options{RawJSON: true, MaxRawJSON: 8}, ".status.map", "", "at most 8"},
		{"no path at all", plain, ".status[", "", "cannot be parsed"},
		{"text that prints", plain, "range .status.list[*]", "", "range"},
		{"a path that is too long", plain, strings.Repeat(".a", 600), "", "1024"},
		{"unions that multiply", plain, strings.Repeat("['a','b']", 20), "", "branches"},
		{"a filter over what is no list quotes nothing of it", plain, ".status.map[?(@.x==1)]", "", "no list"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got := newObserver(t, c.options).Observe(t.Context(), object(t, sample), observe.Rules{Feedback: paths("v", c.path)})
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			if diff := cmp.Diff(want, said(got.Values)); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
			synced := find(t, got, observe.ConditionFeedback)
			switch {
			case c.fails == "" && (synced.Status != metav1.ConditionTrue || synced.Reason != observe.ReasonFeedbackSynced):
				t.Errorf("it failed: %s", synced.Message)
			case c.fails != "" && (synced.Status != metav1.ConditionFalse || synced.Reason != observe.ReasonFeedbackFailed):
				t.Errorf("it did not fail: %v", synced)
			case !strings.Contains(synced.Message, c.fails):
				t.Errorf("the message %q does not say %q", synced.Message, c.fails)
			}
		})
	}
}

func TestFeedbackOfSeveralPaths(t *testing.T) {
	o := newObserver(t, observe.Options{})
	rules := append(paths("Count", ".status.count", "Bad", ".status.map", "Text", ".status.text", "Count", ".status.ok"),
		workv1.FeedbackRule{Type: workv1.JSONPathsType, JsonPaths: []workv1.JsonPath{
			{Name: "Other", Path: ".status.count", Version: "v2"}, {Name: "Same", Path: ".status.count", Version: "v1"},
		}}, workv1.FeedbackRule{Type: "Telepathy"})
	got := o.Observe(t.Context(), object(t, sample), observe.Rules{Feedback: rules})
	want := []string{"Count=3", `Text="hello"`, "Same=3"}
	if diff := cmp.Diff(want, said(got.Values)); diff != "" {
		t.Errorf("values beside paths that fail (-want +got):\n%s", diff)
	}
	message := find(t, got, observe.ConditionFeedback).Message
	for _, part := range []string{`"Bad"`, `"Count" is asked for twice`, `"Other"`, `version "v1"`, "Telepathy"} {
		if !strings.Contains(message, part) {
			t.Errorf("the message %q does not mention %s", message, part)
		}
	}
}

func TestFeedbackBounds(t *testing.T) {
	o := newObserver(t, observe.Options{})
	long := strings.Repeat("x", 15<<10)
	live := object(t, `{"apiVersion":"v1","kind":"Thing"}`)
	var pairs []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		live.Object[name] = long
		pairs = append(pairs, name, "."+name)
	}
	live.Object["huge"] = long + long
	got := o.Observe(t.Context(), live, observe.Rules{Feedback: paths(append(pairs, "huge", ".huge")...)})
	if len(got.Values) != 4 {
		t.Errorf("%d strings of 15 KiB were reported, want 4", len(got.Values))
	}
	if message := find(t, got, observe.ConditionFeedback).Message; !strings.Contains(message, "together") || !strings.Contains(message, "at most 16384") {
		t.Errorf("the message does not name both limits: %s", message)
	}
}

func TestSecretsTellNothing(t *testing.T) {
	secret := object(t, `{"apiVersion":"v1","kind":"Secret","data":{"password":"aHVudGVyMg=="}}`)
	got := newObserver(t, observe.Options{RawJSON: true}).Observe(t.Context(), secret, observe.Rules{
		Feedback: paths("Password", ".data.password"),
		Conditions: []workv1.ConditionRule{{
			Condition: "Leak", Type: workv1.CelConditionExpressionsType,
			CelExpressions: []string{"true"}, MessageExpression: "object.data.password",
		}},
	})
	if all := fmt.Sprint(got.Conditions); strings.Contains(all, "aHVudGVyMg") || len(got.Values) > 0 {
		t.Errorf("the secret leaks: %s", all)
	}
	if c := find(t, got, observe.ConditionFeedback); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "refused") {
		t.Errorf("feedback: %v", c)
	}
	if c := find(t, got, "Leak"); c.Reason != workv1.ConditionRuleInvalid || !strings.Contains(c.Message, "refused") {
		t.Errorf("condition: %v", c)
	}
}

func TestNewChecksItsOptions(t *testing.T) {
	for _, most := range []int{-1, observe.MostRawJSON + 1} {
		if _, err := observe.New(observe.Options{MaxRawJSON: most}); err == nil {
			t.Errorf("New took a MaxRawJSON of %d", most)
		}
	}
}
