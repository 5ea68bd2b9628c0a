package observe_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// check observes within a time that no rule may take, and holds the result
// against what a status can hold.
func check(t *testing.T, o *observe.Observer, live *unstructured.Unstructured, r observe.Rules) {
	t.Helper()
	done := make(chan observe.Result, 1)
	go func() { done <- o.Observe(t.Context(), live, r) }()
	var got observe.Result
	select {
	case got = <-done:
	case <-time.After(time.Minute):
		t.Fatal("the rules take longer than a minute")
	}
	for _, c := range got.Conditions {
		if c.Type == "" || c.Status == "" || c.Reason == "" || c.Message == "" && c.Type != observe.ConditionReady || len(c.Message) > 1100 {
			t.Errorf("no status can hold %+v", c)
		}
	}
	for _, v := range got.Values {
		if v.Value.JsonRaw != nil && len(*v.Value.JsonRaw) > observe.MostRawJSON {
			t.Errorf("%s has %d bytes of JSON", v.Name, len(*v.Value.JsonRaw))
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, path := range []string{
		".status.count", ".status.list[*].name", `.status.list[?(@.name=="second")].n`, "..n", ".status.map.*",
		".status.ports[-1:]", "['a','b']", "{range .a[*]}{.b}{end}", ".status.list[?(@.n>1)]", "$..*", "[::0]", "{", "}{",
		".a[?(@.b[?(@.c==1)])]", ".status.ports[0:9999999999999999999]", `.status.text[0]`, ".status.list[0,1].n", "{}",
	} {
		f.Add(path)
	}
	o := newObserver(f, observe.Options{RawJSON: true})
	live := object(f, sample)
	f.Fuzz(func(t *testing.T, path string) {
		check(t, o, live, observe.Rules{Feedback: paths("v", path)})
	})
}

func FuzzCEL(f *testing.F) {
	for _, text := range []string{
		"object.status.count == 3", "object.status.list.all(x, x.n > 0)", "has(object.status) && hasConditions(object.status)",
		"object.status.text.replace('', object.status.text) != ''", "'%.99f'.format([1.0]) != ''", "[1,2].map(x, [x]+[x])",
		"object.status.text.split('')", "quantity('1Gi').isGreaterThan(quantity('1'))", "semver('1.0.0') == object", "dyn(object)",
		"object.status.ports.map(p, string(p)).join(object.status.text)", "optional.of(object).hasValue()", "url('a').getHost()", "result",
	} {
		f.Add(text, text)
	}
	o := newObserver(f, observe.Options{})
	live := object(f, sample)
	f.Fuzz(func(t *testing.T, expression, message string) {
		rule := cel(expression)
		rule.MessageExpression = message
		check(t, o, live, observe.Rules{Conditions: []workv1.ConditionRule{rule}})
	})
}

func FuzzObject(f *testing.F) {
	for _, text := range []string{
		sample, `{}`, `{"apiVersion":1,"kind":[]}`, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"generation":"x"},"status":[1]}`,
		`{"apiVersion":"batch/v1","kind":"Job","status":{"conditions":[1,{"type":2}]}}`, `{"apiVersion":"v1","kind":"Pod","spec":1,"status":{"phase":7}}`,
		`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","containerStatuses":[{"state":1}],"conditions":[{"type":"PodScheduled","status":"False","lastTransitionTime":"x"}]}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","status":{"conditions":{}}}`,
		`{"apiVersion":"v1","kind":"Thing","a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
	} {
		f.Add(text)
	}
	o := newObserver(f, observe.Options{RawJSON: true})
	wellKnown := workv1.ConditionRule{Condition: "Complete", Type: workv1.WellKnownConditionsType}
	rules := observe.Rules{
		Feedback:   append(paths("all", "..", "star", ".status.*", "list", ".status.conditions[?(@.type==\"Ready\")].status"), workv1.FeedbackRule{Type: workv1.WellKnownStatusType}),
		Conditions: []workv1.ConditionRule{cel("hasConditions(object.status) && object.status.conditions.exists(c, c.type == 'Ready')"), wellKnown},
	}
	f.Fuzz(func(t *testing.T, text string) {
		var fields map[string]any
		if utiljson.Unmarshal([]byte(text), &fields) != nil || fields == nil {
			return
		}
		check(t, o, &unstructured.Unstructured{Object: fields}, rules)
	})
}
