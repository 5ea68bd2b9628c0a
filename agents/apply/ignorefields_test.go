package apply_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

func TestIgnoreFieldsOnPresence(t *testing.T) {
	c := newCluster(t)
	manifest := func(x, y string) map[string]any { return c.configMap("a", map[string]string{"x": x, "y": y}) }
	w := c.newWork("web", manifest("1", "1"))
	w.strategy(ignoring(workv1.IgnoreField{Condition: workv1.IgnoreFieldsConditionOnSpokePresent, JSONPaths: []string{".data.x"}}), "", "configmaps")
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "1", "y": "1"}, c.data("a")); diff != "" {
		t.Errorf("data once created (-want +got):\n%s", diff)
	}
	// Nobody else ever wrote x, and still it neither goes nor changes.
	c.wire.requests()
	w.set(manifest("2", "1"))
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("wrote %v for a field that is ignored", got)
	}
	w.set(manifest("2", "2"))
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "1", "y": "2"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"local","y":"drift"}}`)
	w.strategyOf(0).Force = true // y has another manager now.
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "local", "y": "2"}, c.data("a")); diff != "" {
		t.Errorf("data after local changes (-want +got):\n%s", diff)
	}
	c.restart(apply.Options{})
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("a restarted agent wrote %v", got)
	}
}

func (s *story) strategyOf(i int) *workv1.ServerSideApplyConfig {
	return s.work.Spec.ManifestConfigs[i].UpdateStrategy.ServerSideApply
}

func TestIgnoreFieldsOnChange(t *testing.T) {
	c := newCluster(t)
	manifest := func(x, y string) map[string]any { return c.configMap("a", map[string]string{"x": x, "y": y}) }
	w := c.newWork("web", manifest("1", "1"))
	w.strategy(serverSide(workv1.ServerSideApplyConfig{Force: true, IgnoreFields: []workv1.IgnoreField{{
		Condition: workv1.IgnoreFieldsConditionOnSpokeChange, JSONPointers: []string{"/data/x"},
	}}}), "", "configmaps")
	w.mustApply()
	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"local"}}`)
	c.wire.requests()
	for range 3 {
		w.mustApply()
	}
	if got := c.wire.writes(); len(got) > 0 || c.data("a")["x"] != "local" {
		t.Errorf("wrote %v, x = %q", got, c.data("a")["x"])
	}
	c.patch(configMaps, c.namespace, "a", `{"data":{"y":"drift"}}`)
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "local", "y": "1"}, c.data("a")); diff != "" {
		t.Errorf("data after drift elsewhere (-want +got):\n%s", diff)
	}
	w.set(manifest("1", "2"))
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "1", "y": "2"}, c.data("a")); diff != "" {
		t.Errorf("data after the manifest changed (-want +got):\n%s", diff)
	}
}

// Elements that others have in a list stay, and so do those that the work made
// and ignores.
func TestIgnoreElementsOfLists(t *testing.T) {
	c := newCluster(t)
	d := c.deployment("d", 1)
	pod := d["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	pod["containers"] = []any{
		map[string]any{"name": "main", "image": "example.com/main:1"},
		map[string]any{"name": "sidecar", "image": "example.com/sidecar:1"},
	}
	w := c.newWork("web", d)
	w.strategy(ignoring(workv1.IgnoreField{JQPathExpressions: []string{
		`.spec.template.spec.containers[] | select(.name | test("^sidecar"))`,
	}}), "apps", "deployments")
	w.mustApply()
	pod["containers"].([]any)[0].(map[string]any)["image"] = "example.com/main:2"
	pod["containers"].([]any)[1].(map[string]any)["image"] = "example.com/sidecar:2"
	w.set(d)
	w.mustApply()
	images := func() map[string]string {
		containers, _, _ := unstructured.NestedSlice(c.get(deployments, c.namespace, "d").Object, "spec", "template", "spec", "containers")
		out := make(map[string]string)
		for _, e := range containers {
			out[e.(map[string]any)["name"].(string)] = e.(map[string]any)["image"].(string)
		}
		return out
	}
	if diff := cmp.Diff(map[string]string{"main": "example.com/main:2", "sidecar": "example.com/sidecar:1"}, images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	c.wire.requests()
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("wrote %v", got)
	}
}

func TestIgnoreFieldsThatCannotBeFound(t *testing.T) {
	for _, tt := range []struct {
		reason string
		field  workv1.IgnoreField
		says   string
	}{
		{"an element of a list by JSONPath", workv1.IgnoreField{JSONPaths: []string{".data[0]"}}, "jqPathExpressions"},
		{"the name of the object", workv1.IgnoreField{JSONPointers: []string{"/metadata/name"}}, "which object is meant"},
		{"jq that does not fit", workv1.IgnoreField{JQPathExpressions: []string{".data.x.y"}}, "jq 'path(...)'"},
		{"jq that reads the environment", workv1.IgnoreField{JQPathExpressions: []string{"env.HOME"}}, "env/0"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			w := c.newWork("web", c.configMap("a", map[string]string{"x": "secret-content"}), c.service("s"))
			w.strategy(ignoring(tt.field), "", "configmaps")
			status := w.mustApply()
			if got := manifestCondition(status, 0, workv1.ManifestApplied); got != "False AppliedManifestSSAIgnoreFieldError" {
				t.Errorf("Applied = %s", got)
			}
			message := manifestMessage(status, 0)
			if !strings.Contains(message, tt.says) || strings.Contains(message, "secret-content") {
				t.Errorf("message = %q, want %q", message, tt.says)
			}
			if got := manifestCondition(status, 1, workv1.ManifestApplied); got != manifestApplied {
				t.Errorf("Applied of the service = %s", got)
			}
			if c.get(configMaps, c.namespace, "a") != nil {
				t.Error("it was applied all the same")
			}
		})
	}
}
