package apply_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func TestAppliesAWork(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
		"metadata": map[string]any{"name": c.namespace + "-role", "namespace": "ignored"},
		"rules":    []any{map[string]any{"apiGroups": []string{""}, "resources": []string{"pods"}, "verbs": []string{"get"}}},
	})
	status := w.mustApply()

	if got := condition(status, workv1.WorkApplied); got != workApplied {
		t.Errorf("Applied = %s", got)
	}
	if got := condition(status, workv1.WorkAvailable); got != "True ResourcesAvailable" {
		t.Errorf("Available = %s", got)
	}
	want := []workv1.ManifestResourceMeta{
		{Ordinal: 0, Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespace: c.namespace, Name: "a"},
		{Ordinal: 1, Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole", Resource: "clusterroles", Name: c.namespace + "-role"},
	}
	var got []workv1.ManifestResourceMeta
	for _, m := range status.ResourceStatus.Manifests {
		got = append(got, m.ResourceMeta)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resource metas in the order of the work (-want +got):\n%s", diff)
	}

	applied := w.appliedWork()
	spec := workv1.AppliedManifestWorkSpec{HubHash: c.hub, AgentID: "agent-" + c.hub, ManifestWorkName: "web"}
	if diff := cmp.Diff(spec, applied.Spec); diff != "" {
		t.Errorf("AppliedManifestWork spec (-want +got):\n%s", diff)
	}
	if applied.Labels["team"] != "blue" || !cmp.Equal(applied.Finalizers, []string{api.AppliedWorkFinalizer}) {
		t.Errorf("labels %v, finalizers %v", applied.Labels, applied.Finalizers)
	}
	live := c.get(configMaps, c.namespace, "a")
	if refs := live.GetOwnerReferences(); len(refs) != 1 || refs[0].UID != applied.UID || refs[0].Kind != "AppliedManifestWork" {
		t.Errorf("owners = %v, want the AppliedManifestWork", refs)
	}
}

func TestUnchangedWorkCostsNoRequest(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.deployment("d", 2))
	w.mustApply()
	c.wire.requests()
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("writes without watches: %v", got)
	}
	c.run()
	c.until("watches vouch for every object", func() bool {
		w.mustApply()
		return len(c.wire.requests()) == 0
	})
	before := w.last.Payload
	w.mustApply()
	if diff := cmp.Diff(string(before), string(w.last.Payload)); diff != "" {
		t.Errorf("the report changed (-before +after):\n%s", diff)
	}
	w.observe()
	if got := c.wire.requests(); len(got) > 0 {
		t.Errorf("requests with watches: %v", got)
	}
}

func TestRestartWritesNothing(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.deployment("d", 2), c.service("s"),
		map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "namespace": c.namespace}, "stringData": map[string]string{"k": "v"}},
		map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "sa", "namespace": c.namespace}},
		map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
			"metadata": map[string]any{"name": "rb", "namespace": c.namespace},
			"roleRef":  map[string]any{"kind": "ClusterRole", "name": "view"},
			"subjects": []any{map[string]any{"kind": "User", "name": "jane"}},
		},
		map[string]any{
			"apiVersion": "batch/v1", "kind": "CronJob", "metadata": map[string]any{"name": "cj", "namespace": c.namespace},
			"spec": map[string]any{"schedule": "* * * * *", "jobTemplate": map[string]any{"spec": map[string]any{"template": podTemplate("cj")}}},
		},
	)
	w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeServerSideApply}, "", "services")
	w.mustApply()
	c.restart(apply.Options{})
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("a restarted agent wrote: %v", got)
	}
	w.work.Generation++ // As a change of another manifest brings about.
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("a new generation with the same manifests wrote: %v", got)
	}
}

// An agent that dies between the inventory and the objects leaves nothing that
// the next one does not know.
func TestKilledBetweenInventoryAndObjects(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	creates := 0
	c.wire.cut(func(r *http.Request) bool {
		if r.Method == http.MethodPost && r.URL.Path == "/api/v1/namespaces/"+c.namespace+"/configmaps" {
			creates++
			return creates > 1 // The first goes through: it is the possible orphan.
		}
		return creates > 1
	})
	if _, err := w.apply(); err == nil {
		t.Fatal("Apply succeeded over a cut wire")
	}
	if diff := cmp.Diff([]string{"configmaps/a", "configmaps/b"}, w.inventory()); diff != "" {
		t.Fatalf("inventory (-want +got):\n%s", diff)
	}

	// The work loses a before the next agent comes up.
	c.restart(apply.Options{})
	w.set(c.configMap("b", nil))
	w.mustApply()
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("a is an orphan")
	}
	if c.get(configMaps, c.namespace, "b") == nil {
		t.Error("b is missing")
	}
	if diff := cmp.Diff([]string{"configmaps/b"}, w.inventory()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}

func (c *cluster) service(name string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name, "namespace": c.namespace},
		"spec": map[string]any{"selector": map[string]string{"app": name}, "ports": []any{map[string]any{"port": 80}}},
	}
}

func podTemplate(name string) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"labels": map[string]string{"app": name}, "creationTimestamp": nil},
		"spec": map[string]any{
			"restartPolicy": "Never",
			"containers": []any{map[string]any{
				"name": "main", "image": "example.com/" + name + ":1",
				"resources": map[string]any{"requests": map[string]any{"cpu": "1000m"}},
			}},
		},
	}
}

func (c *cluster) deployment(name string, replicas int) map[string]any {
	template := podTemplate(name)
	unstructured.RemoveNestedField(template, "spec", "restartPolicy")
	spec := map[string]any{
		"selector": map[string]any{"matchLabels": map[string]string{"app": name}},
		"template": template, "strategy": map[string]any{},
	}
	if replicas > 0 {
		spec["replicas"] = replicas
	}
	return map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": name, "namespace": c.namespace, "creationTimestamp": nil},
		"spec":     spec, "status": map[string]any{},
	}
}
