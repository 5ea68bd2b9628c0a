package apply_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

func TestUpdatePutsDriftBack(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.deployment("d", 2))
	w.mustApply()

	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"2","y":"3"},"metadata":{"labels":{"mine":"yes"}}}`)
	c.patch(deployments, c.namespace, "d", `{"spec":{"replicas":5},"metadata":{"annotations":{"note":"keep"}}}`)
	w.mustApply()

	if diff := cmp.Diff(map[string]string{"x": "1"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if got := c.get(configMaps, c.namespace, "a").GetLabels()["mine"]; got != "yes" {
		t.Errorf("a label of somebody else is %q", got)
	}
	d := c.get(deployments, c.namespace, "d")
	if got, _, _ := unstructured.NestedInt64(d.Object, "spec", "replicas"); got != 2 {
		t.Errorf("replicas = %d, want 2", got)
	}
	if d.GetAnnotations()["note"] != "keep" {
		t.Errorf("annotations = %v, want those of others kept", d.GetAnnotations())
	}
}

func TestUpdateRemovesWhatTheManifestDropped(t *testing.T) {
	c := newCluster(t)
	d := c.deployment("d", 3)
	d["spec"].(map[string]any)["minReadySeconds"] = 7
	w := c.newWork("web", d, c.configMap("a", map[string]string{"x": "1", "y": "2"}))
	w.mustApply()

	// The agent restarts in between, so that nothing is left in its memory.
	c.restart(apply.Options{})
	w.set(c.deployment("d", 0), c.configMap("a", map[string]string{"x": "1"}))
	w.mustApply()

	live := c.get(deployments, c.namespace, "d")
	if got, ok, _ := unstructured.NestedInt64(live.Object, "spec", "minReadySeconds"); ok {
		t.Errorf("minReadySeconds = %d, want it gone", got)
	}
	if got, _, _ := unstructured.NestedInt64(live.Object, "spec", "replicas"); got != 3 {
		t.Errorf("replicas = %d, want those that an autoscaler may have chosen", got)
	}
	if diff := cmp.Diff(map[string]string{"x": "1"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}

func TestUpdateKeepsClusterIP(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.service("s"))
	w.mustApply()
	ip, _, _ := unstructured.NestedString(c.get(services, c.namespace, "s").Object, "spec", "clusterIP")

	s := c.service("s")
	s["spec"].(map[string]any)["ports"] = []any{map[string]any{"port": 81}}
	w.set(s)
	w.mustApply()
	c.patch(services, c.namespace, "s", `{"spec":{"selector":{"more":"specific"}}}`)
	w.mustApply()

	live := c.get(services, c.namespace, "s")
	if got, _, _ := unstructured.NestedString(live.Object, "spec", "clusterIP"); got != ip {
		t.Errorf("clusterIP went from %s to %s", ip, got)
	}
	selector, _, _ := unstructured.NestedStringMap(live.Object, "spec", "selector")
	if diff := cmp.Diff(map[string]string{"app": "s"}, selector); diff != "" {
		t.Errorf("selector (-want +got):\n%s", diff)
	}
}

func TestUpdateReportsImmutableFields(t *testing.T) {
	c := newCluster(t)
	d := c.deployment("d", 1)
	w := c.newWork("web", d, c.configMap("a", nil))
	w.mustApply()

	changed := c.deployment("d", 1)
	changed["spec"].(map[string]any)["selector"] = map[string]any{"matchLabels": map[string]string{"app": "d", "tier": "x"}}
	w.set(changed, c.configMap("a", map[string]string{"x": "1"}))
	status, err := w.apply()
	if err == nil {
		t.Error("Apply did not ask for another try")
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("Applied of the deployment = %s", got)
	}
	if got := manifestCondition(status, 0, workv1.ManifestAvailable); got != "True ResourceAvailable" {
		t.Errorf("Available of the deployment = %s: it is there", got)
	}
	if got := manifestCondition(status, 1, workv1.ManifestApplied); got != manifestApplied {
		t.Errorf("Applied of the config map = %s", got)
	}
}

func TestCreateOnly(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}))
	w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeCreateOnly}, "", "configmaps")
	w.mustApply()
	w.set(c.configMap("a", map[string]string{"x": "2"}))
	status := w.mustApply()

	if diff := cmp.Diff(map[string]string{"x": "1"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if got := condition(status, workv1.WorkApplied); got != workApplied {
		t.Errorf("Applied = %s", got)
	}
	w.work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	w.mustApply()
	if refs := c.get(configMaps, c.namespace, "a").GetOwnerReferences(); len(refs) != 0 {
		t.Errorf("owners = %v, want none once orphaned", refs)
	}
}

func TestReadOnly(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}))
	w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
	status := w.mustApply()
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestApplied {
		t.Errorf("Applied = %s", got)
	}
	if got := manifestCondition(status, 0, workv1.ManifestAvailable); got != "False ResourceNotAvailable" {
		t.Errorf("Available = %s", got)
	}

	other := c.newWork("other", c.configMap("a", map[string]string{"x": "2"}))
	other.mustApply()
	if got := manifestCondition(w.mustApply(), 0, workv1.ManifestAvailable); got != "True ResourceAvailable" {
		t.Errorf("Available = %s", got)
	}
	if _, err := w.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if diff := cmp.Diff(map[string]string{"x": "2"}, c.data("a")); diff != "" {
		t.Errorf("data after the reader is gone (-want +got):\n%s", diff)
	}
}

func TestSecretsAreNeverQuoted(t *testing.T) {
	const marker = "Ma12rker+Ma12rker/x"
	c := newCluster(t)
	secret := func(change func(map[string]any)) map[string]any {
		m := map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
			"metadata": map[string]any{"name": "s", "namespace": c.namespace},
		}
		change(m)
		return m
	}
	for _, tt := range []struct {
		reason   string
		manifest any
	}{
		{"the server refuses the type and quotes the data of a docker config", secret(func(m map[string]any) {
			m["type"] = "kubernetes.io/dockerconfigjson"
			m["stringData"] = map[string]string{".dockerconfigjson": marker}
		})},
		{"the server quotes the type", secret(func(m map[string]any) { m["type"] = marker; m["immutable"] = marker })},
		{"a label that the server quotes when it refuses it", secret(func(m map[string]any) {
			m["metadata"].(map[string]any)["labels"] = map[string]any{"copy": marker}
		})},
		{"a key that is not allowed", secret(func(m map[string]any) { m["stringData"] = map[string]any{"k/": marker} })},
		{"data that is not base64", secret(func(m map[string]any) { m["data"] = map[string]any{"k": "!" + marker} })},
		{"data that is no map", secret(func(m map[string]any) { m["data"] = marker })},
		{"data and stringData that differ", secret(func(m map[string]any) {
			m["data"], m["stringData"] = map[string]any{"k": "eA=="}, map[string]any{"k": marker}
		})},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := *c
			c.T = t
			w := c.newWork("web", tt.manifest)
			status, err := w.apply()
			if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
				t.Fatalf("Applied = %s", got)
			}
			if said := string(w.last.Payload); strings.Contains(said, marker) {
				t.Errorf("the report quotes the secret: %s", said)
			}
			if err != nil && strings.Contains(err.Error(), marker) {
				t.Errorf("the error quotes the secret: %v", err)
			}
		})
	}
}

// An object that a work once wrote and now only reads does not belong to it.
func TestReadOnlyLetsGoOfTheObject(t *testing.T) {
	for _, tt := range []struct {
		reason string
		end    func(*story)
	}{
		{"the work is deleted", func(w *story) {
			if _, err := w.delete(); err != nil {
				t.Fatalf("Delete: %v", err)
			}
		}},
		{"the work drops the manifest", func(w *story) {
			w.set(w.service("s"))
			w.mustApply()
		}},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}))
			w.mustApply()
			w.set(c.configMap("a", map[string]string{"x": "2"}))
			w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
			c.wire.requests()
			w.mustApply()
			w.mustApply()
			if got := c.wire.writes(); len(got) != 1 {
				t.Errorf("wrote %v, want one patch of the owners", got)
			}
			if refs := c.get(configMaps, c.namespace, "a").GetOwnerReferences(); len(refs) != 0 {
				t.Errorf("owners = %v", refs)
			}
			tt.end(w)
			if diff := cmp.Diff(map[string]string{"x": "1"}, c.data("a")); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
		})
	}
}

// A deletion may come before the generation that only reads was ever applied.
func TestDeleteSparesWhatTheWorkOnlyReads(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.service("s"))
	w.mustApply()
	w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
	b := w.bundle()
	b.DeletedAt = time.Now()
	if _, err := c.applier.Delete(c.ctx, b, w.last); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if c.get(configMaps, c.namespace, "a") == nil {
		t.Error("the object that is only read was deleted")
	}
	if c.get(services, c.namespace, "s") != nil {
		t.Error("the service is still there")
	}
}
