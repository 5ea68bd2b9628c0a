package apply_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/codec"
)

// One manifest that cannot be applied says so, and costs the others nothing.
func TestInvalidManifests(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{Limits: apply.Limits{ManifestBytes: 4096}})
	with := func(change func(m, metadata map[string]any)) map[string]any {
		m := c.configMap("bad", nil)
		change(m, m["metadata"].(map[string]any))
		return m
	}
	tests := []struct {
		reason   string
		manifest any
		says     string
	}{
		{"no apiVersion", with(func(m, _ map[string]any) { delete(m, "apiVersion") }), "apiVersion is missing"},
		{"an apiVersion that is no version", with(func(m, _ map[string]any) { m["apiVersion"] = "a/b/c" }), "apiVersion is not"},
		{"no kind", with(func(m, _ map[string]any) { delete(m, "kind") }), "kind is missing"},
		{"a kind that is a number", with(func(m, _ map[string]any) { m["kind"] = 7 }), "kind is not a string"},
		{"no name", with(func(_, md map[string]any) { delete(md, "name") }), "metadata.name is missing"},
		{"a name that leads elsewhere", with(func(_, md map[string]any) { md["name"] = "../secrets/x" }), "metadata.name is not valid"},
		{"a generated name", with(func(_, md map[string]any) { md["generateName"] = "x-" }), "generateName"},
		{"no metadata", with(func(m, _ map[string]any) { m["metadata"] = "x" }), "metadata.name is not a string"},
		{"labels that are numbers", with(func(_, md map[string]any) { md["labels"] = map[string]any{"a": 1} }), "labels is not"},
		{"no namespace", with(func(_, md map[string]any) { delete(md, "namespace") }), "metadata.namespace is missing"},
		{"a namespace that is not there", with(func(_, md map[string]any) { md["namespace"] = "nowhere" }), "nowhere"},
		{"a list", map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"name": "l"}, "items": []any{}}, "list"},
		{"the agent's own kind", map[string]any{"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork", "metadata": map[string]any{"name": "x"}}, "belongs to the agent"},
		{"the object of another manifest", c.configMap("good", nil), "manifest 0 means the same object"},
		{"too many bytes", c.configMap("big", map[string]string{"x": strings.Repeat("x", 5000)}), "at most 4096"},
		{"a field that the server refuses", with(func(m, _ map[string]any) { m["data"] = map[string]any{"no/key": "x"} }), "no/key"},
	}
	manifests := []any{c.configMap("good", map[string]string{"x": "1"})}
	for _, tt := range tests {
		manifests = append(manifests, tt.manifest)
	}
	w := c.newWork("web", manifests...)
	status, _ := w.apply()
	for i, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			if got := manifestCondition(status, i+1, workv1.ManifestApplied); got != manifestFailed {
				t.Errorf("Applied = %s", got)
			}
			if got := manifestMessage(status, i+1); !strings.Contains(got, tt.says) {
				t.Errorf("message = %q, want %q in it", got, tt.says)
			}
		})
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestApplied {
		t.Errorf("Applied of the good manifest = %s", got)
	}
	want := fmt.Sprintf("%d of %d manifests are not applied", len(tests), len(tests)+1)
	if got := meta.FindStatusCondition(status.Conditions, workv1.WorkApplied).Message; got != want {
		t.Errorf("message of the work = %q, want %q", got, want)
	}
}

func TestWorksThatAreRefused(t *testing.T) {
	c := newCluster(t)
	executor := c.newWork("executor", c.configMap("a", nil))
	executor.work.Spec.Executor = &workv1.ManifestWorkExecutor{}
	for _, w := range []*story{executor, c.newWork("empty")} {
		status, err := w.apply()
		if err != nil {
			t.Errorf("%s: Apply asks for another try: %v", w.work.Name, err)
		}
		if got := condition(status, workv1.WorkApplied); got != workFailed {
			t.Errorf("%s: Applied = %s", w.work.Name, got)
		}
	}
	w := c.newWork("broken", c.configMap("a", nil))
	b := w.bundle()
	b.Payload = []byte(`{"manifests":7}`)
	report, err := c.applier.Apply(c.ctx, b, codec.Report{})
	if err != nil {
		t.Errorf("Apply asks for another try: %v", err)
	}
	if got := condition(w.told(report), workv1.WorkApplied); got != workFailed {
		t.Errorf("Applied = %s", got)
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("a refused work was applied")
	}
}

func TestConditionsOverTime(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	applied := func(status workv1.ManifestWorkStatus) metav1.Condition {
		return *meta.FindStatusCondition(status.ResourceStatus.Manifests[0].Conditions, workv1.ManifestApplied)
	}
	first := applied(w.mustApply())
	if first.ObservedGeneration != w.work.Generation {
		t.Errorf("observed generation %d, want %d", first.ObservedGeneration, w.work.Generation)
	}
	age(t, w)
	again := applied(w.mustApply())
	if !again.LastTransitionTime.Time.Before(first.LastTransitionTime.Time) {
		t.Errorf("the transition time moved to %v without a transition", again.LastTransitionTime)
	}
	w.set(c.configMap("a", map[string]string{"x": "1"}))
	next := applied(w.mustApply())
	if !next.LastTransitionTime.After(again.LastTransitionTime.Time) || next.ObservedGeneration != w.work.Generation {
		t.Errorf("a new generation left the condition at %v", next)
	}

	c.remove(configMaps, c.namespace, "a")
	status := w.observe()
	if got := manifestCondition(status, 0, workv1.ManifestAvailable); got != "False ResourceNotAvailable" {
		t.Errorf("Available = %s", got)
	}
	if got := meta.FindStatusCondition(status.Conditions, workv1.WorkAvailable).Message; got != "1 of 1 resources are not available" {
		t.Errorf("message = %q", got)
	}
	if diff := cmp.Diff(next, applied(status)); diff != "" {
		t.Errorf("looking changed the Applied condition (-before +after):\n%s", diff)
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("Observe changed the cluster")
	}
}

// age makes the last report an hour old.
func age(t *testing.T, w *story) {
	t.Helper()
	status, err := w.last.Status()
	if err != nil {
		t.Fatal(err)
	}
	for i := range status.ResourceStatus.Manifests {
		for j := range status.ResourceStatus.Manifests[i].Conditions {
			at := &status.ResourceStatus.Manifests[i].Conditions[j].LastTransitionTime
			at.Time = at.Add(-time.Hour)
		}
	}
	if w.last, err = codec.NewReport(w.bundle(), status); err != nil {
		t.Fatal(err)
	}
}

// Without the server nothing is known, and nothing is claimed.
func TestApplyWithoutTheServer(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	c.wire.cut(func(*http.Request) bool { return true })
	status, err := w.apply()
	if err == nil {
		t.Error("Apply did not ask for another try")
	}
	if got := condition(status, workv1.WorkApplied); got != workFailed {
		t.Errorf("Applied = %s", got)
	}
	if got := condition(status, workv1.WorkAvailable); got != "Unknown ResourcesStatusUnknown" {
		t.Errorf("Available = %s", got)
	}
	c.wire.cut(nil)
	c.until("the work is applied", func() bool { _, err := w.apply(); return err == nil })
}
