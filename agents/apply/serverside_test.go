package apply_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

func serverSide(c workv1.ServerSideApplyConfig) workv1.UpdateStrategy {
	return workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeServerSideApply, ServerSideApply: &c}
}

func TestServerSideApply(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.deployment("d", 2), c.configMap("a", map[string]string{"x": "1", "y": "2"}))
	w.strategy(serverSide(workv1.ServerSideApplyConfig{}), "apps", "deployments")
	w.strategy(serverSide(workv1.ServerSideApplyConfig{}), "", "configmaps")
	w.mustApply()

	live := c.get(deployments, c.namespace, "d")
	var managers []string
	for _, f := range live.GetManagedFields() {
		managers = append(managers, f.Manager+" "+string(f.Operation))
	}
	if diff := cmp.Diff([]string{"work-agent Apply"}, managers); diff != "" {
		t.Errorf("field managers (-want +got):\n%s", diff)
	}
	if refs := live.GetOwnerReferences(); len(refs) != 1 || refs[0].UID != w.appliedWork().UID {
		t.Errorf("owners = %v", refs)
	}

	// Fields of others stay, fields that the manifest drops go.
	c.patch(configMaps, c.namespace, "a", `{"data":{"theirs":"z"}}`)
	c.restart(apply.Options{})
	w.set(c.deployment("d", 2), c.configMap("a", map[string]string{"x": "1"}))
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "1", "theirs": "z"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if got := c.get(deployments, c.namespace, "d").GetGeneration(); got != live.GetGeneration() {
		t.Errorf("generation of the deployment went from %d to %d", live.GetGeneration(), got)
	}
}

func TestServerSideApplyConflict(t *testing.T) {
	c := newCluster(t)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": c.namespace},
		"data": map[string]any{"x": "theirs"},
	}}
	if _, err := c.of(configMaps, c.namespace).Create(c.ctx, u, metav1.CreateOptions{FieldManager: "helm"}); err != nil {
		t.Fatal(err)
	}
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "ours"}))
	w.strategy(serverSide(workv1.ServerSideApplyConfig{FieldManager: "work-agent-web"}), "", "configmaps")
	c.run()
	status, err := w.apply()
	if err != nil {
		t.Errorf("a conflict asks for another try: %v", err)
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("Applied = %s", got)
	}
	if got := manifestMessage(status, 0); !strings.Contains(got, `"helm"`) || !strings.Contains(got, ".data.x") {
		t.Errorf("message %q does not name the manager and the field", got)
	}
	c.until("the conflict is remembered", func() bool {
		_, _ = w.apply()
		return len(c.wire.requests()) == 0
	})

	// What resolves it: the other gives the field up.
	c.patch(configMaps, c.namespace, "a", `{"data":{"x":null}}`)
	c.untilTold("web-id")
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "ours"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}

	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"theirs"}}`)
	w.work.Spec.ManifestConfigs[0].UpdateStrategy.ServerSideApply.Force = true
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "ours"}, c.data("a")); diff != "" {
		t.Errorf("data by force (-want +got):\n%s", diff)
	}
}

func TestServerSideApplySharesOwnership(t *testing.T) {
	c := newCluster(t)
	one, two := c.newWork("one", c.configMap("a", map[string]string{"x": "1"})), c.newWork("two", c.configMap("a", map[string]string{"x": "1"}))
	for _, w := range []*story{one, two} {
		w.strategy(serverSide(workv1.ServerSideApplyConfig{}), "", "configmaps")
		w.mustApply()
	}
	if refs := c.get(configMaps, c.namespace, "a").GetOwnerReferences(); len(refs) != 2 {
		t.Errorf("owners = %v, want both works", refs)
	}
	two.work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	two.mustApply()
	refs := c.get(configMaps, c.namespace, "a").GetOwnerReferences()
	if len(refs) != 1 || refs[0].UID != one.appliedWork().UID {
		t.Errorf("owners = %v, want only the first work", refs)
	}
}

func TestFieldManagerMustBeOurs(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	w.strategy(serverSide(workv1.ServerSideApplyConfig{FieldManager: "kubectl"}), "", "configmaps")
	status, err := w.apply()
	if err != nil {
		t.Errorf("Apply asks for another try: %v", err)
	}
	if got := manifestMessage(status, 0); !strings.Contains(got, "work-agent") {
		t.Errorf("message = %q", got)
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("it was applied all the same")
	}
}
