package apply_test

import (
	"strings"
	"testing"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// TestRefusedIsReportedAlike by Apply and Observe: a report that changed with
// every turn would be sent with every turn.
func TestRefusedIsReportedAlike(t *testing.T) {
	for _, tt := range []struct {
		reason    string
		rights    []string // Nil for a work without an executor.
		twice     bool
		available string
	}{
		{"the executor may get, not delete", []string{"get", "create", "update", "patch"}, false, "True ResourcesAvailable"},
		{"the executor may not get", []string{"create", "update", "patch", "delete"}, false, "Unknown ResourcesStatusUnknown"},
		{"the same object twice", nil, true, "True ResourcesAvailable"},
	} {
		for _, checkOnly := range []bool{false, true} {
			c := newCluster(t)
			c.restart(apply.Options{Executors: apply.Executors{CheckOnly: checkOnly}})
			manifests := []any{c.configMap("m", map[string]string{"x": "1"})}
			if tt.twice {
				manifests = append(manifests, manifests[0])
			}
			w := c.newWork("web", manifests...)
			if tt.rights != nil {
				g := c.newTeam("deployer")
				g.permit("", "configmaps", tt.rights...)
				c.create(configMaps, c.configMap("m", map[string]string{"x": "1"}))
				w = g.newWork("web", manifests...)
			}
			for range 3 {
				applied, err := w.apply()
				if err != nil {
					t.Errorf("%s: Apply: %v", tt.reason, err)
				}
				hash := w.last.Hash
				observed := w.observe()
				if w.last.Hash != hash {
					t.Errorf("%s: Apply says Available=%s, Observe says %s", tt.reason, condition(applied, "Available"), condition(observed, "Available"))
				}
				if got := condition(observed, "Available"); got != tt.available {
					t.Errorf("%s: Available=%s, want %s", tt.reason, got, tt.available)
				}
			}
		}
	}
}

// TestCheckOnlyReads is about what an agent with rights to everything tells a work
// whose executor has none.
func TestCheckOnlyReads(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{Executors: apply.Executors{CheckOnly: true}})
	g := c.newTeam("deployer")
	c.create(configMaps, c.configMap("private", map[string]string{"x": "private value"}))
	w := g.newWork("web", c.configMap("private", map[string]string{"x": "1"}))
	w.work.Spec.ManifestConfigs = []workv1.ManifestConfigOption{{
		ResourceIdentifier: workv1.ResourceIdentifier{Resource: "configmaps", Namespace: c.namespace, Name: "private"},
		FeedbackRules:      []workv1.FeedbackRule{{Type: workv1.JSONPathsType, JsonPaths: []workv1.JsonPath{{Name: "X", Path: ".data.x"}}}},
	}}
	_, _ = w.apply()
	for _, v := range w.observe().ResourceStatus.Manifests[0].StatusFeedbacks.Values {
		t.Errorf("an executor without any right is told %s = %q", v.Name, *v.Value.String)
	}
	g.permit("", "configmaps", "get")
	c.restart(apply.Options{Executors: apply.Executors{CheckOnly: true}})
	if got := w.observe().ResourceStatus.Manifests[0].StatusFeedbacks.Values; len(got) != 1 {
		t.Errorf("one that may get it is told %v", got)
	}
}

// TestCheckOnlyReplaces is about an object that can only be changed by being made
// anew, which takes a right to delete even where the work would not delete it.
func TestCheckOnlyReplaces(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{Executors: apply.Executors{CheckOnly: true}})
	g := c.newTeam("deployer")
	g.permit("", "configmaps", "get", "create", "update", "patch")
	m := c.configMap("m", map[string]string{"x": "theirs"})
	m["immutable"] = true
	c.create(configMaps, m)
	before := c.get(configMaps, c.namespace, "m").GetUID()
	w := g.newWork("web", c.configMap("m", map[string]string{"x": "1"}))
	w.work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	status, err := w.apply()
	if err != nil {
		t.Errorf("Apply: %v", err)
	}
	if after := c.get(configMaps, c.namespace, "m"); after == nil || after.GetUID() != before {
		t.Error("the object was deleted and made anew for an executor that may not delete")
	}
	if got := manifestMessage(status, 0); !strings.Contains(got, "may not delete") {
		t.Errorf("message = %q", got)
	}
	g.permit("", "configmaps", "get", "create", "update", "patch", "delete")
	c.restart(apply.Options{Executors: apply.Executors{CheckOnly: true}})
	w.mustApply()
	want(t, "with that right", c.data("m"), map[string]string{"x": "1"})
}
