package apply_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// moveHub makes an applier for a hub at another address, as a new process.
func (c *cluster) moveHub(hub string) {
	c.Helper()
	c.hub = hub
	c.restart(apply.Options{})
}

func (c *cluster) owners(name string) []string {
	c.Helper()
	u := c.get(configMaps, c.namespace, name)
	if u == nil {
		return nil
	}
	names := []string{}
	for _, r := range u.GetOwnerReferences() {
		names = append(names, r.Name)
	}
	return names
}

func TestTheHubMoves(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	first := w.appliedName()
	c.moveHub("moved-" + c.namespace)
	w.set(c.configMap("b", nil), c.configMap("c", nil))
	w.mustApply()
	if c.get(appliedWorks, "", w.appliedName()) != nil {
		t.Error("a second AppliedManifestWork was made")
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("what the work dropped is still there")
	}
	for _, name := range []string{"b", "c"} {
		if diff := cmp.Diff([]string{first}, c.owners(name)); diff != "" {
			t.Errorf("owners of %s (-want +got):\n%s", name, diff)
		}
	}
	c.moveHub("again-" + c.namespace)
	if _, err := w.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if deleted, err := w.last.Deleted(); err != nil || !deleted {
		t.Errorf("Deleted = %v, %v", deleted, err)
	}
	if c.get(configMaps, c.namespace, "b") != nil || c.get(configMaps, c.namespace, "c") != nil || c.get(appliedWorks, "", first) != nil {
		t.Error("the deletion was confirmed and left something behind")
	}
}

// One that somebody deletes under its old name comes back under its new one.
func TestTheNextAppliedManifestWorkHasTheNewName(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	w.mustApply()
	first := w.appliedName()
	c.remove(appliedWorks, "", first)
	c.moveHub("moved-" + c.namespace)
	w.mustApply()
	if c.get(appliedWorks, "", first) != nil {
		t.Error("the old one is still there")
	}
	if diff := cmp.Diff([]string{w.appliedName()}, c.owners("a")); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

// second gives the work another AppliedManifestWork, which lists the objects
// and owns them beside the first.
func (s *story) second(hub string, objects ...string) string {
	s.Helper()
	u := s.get(appliedWorks, "", s.appliedName())
	name := hub + "-" + s.work.Name
	u.SetName(name)
	u.SetUID("")
	u.SetResourceVersion("")
	made, err := s.of(appliedWorks, "").Create(s.ctx, u, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	var listed []any
	for _, object := range objects {
		live := s.get(configMaps, s.namespace, object)
		if live == nil {
			live, err = s.of(configMaps, s.namespace).Create(s.ctx, &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "v1", "kind": "ConfigMap",
				"metadata": map[string]any{"name": object, "namespace": s.namespace},
			}}, metav1.CreateOptions{})
			if err != nil {
				s.Fatal(err)
			}
		}
		live.SetOwnerReferences(append(live.GetOwnerReferences(), metav1.OwnerReference{
			APIVersion: made.GetAPIVersion(), Kind: made.GetKind(), Name: name, UID: made.GetUID(),
		}))
		if _, err := s.of(configMaps, s.namespace).Update(s.ctx, live, metav1.UpdateOptions{}); err != nil {
			s.Fatal(err)
		}
		listed = append(listed, map[string]any{"version": "v1", "resource": "configmaps", "name": object, "namespace": s.namespace})
	}
	made.Object["status"] = map[string]any{"appliedResources": listed}
	if _, err := s.of(appliedWorks, "").UpdateStatus(s.ctx, made, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	return name
}

// A work may have two AppliedManifestWorks of earlier agents.
func TestSeveralAppliedManifestWorksAreMerged(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	// Another work's objects and AppliedManifestWork have no part in it.
	other := c.newWork("other", c.configMap("a", nil))
	other.mustApply()
	second := w.second("second-"+c.namespace, "a", "b", "dropped")
	was := c.get(configMaps, c.namespace, "b").GetUID()

	c.restart(apply.Options{})
	w.mustApply()
	if c.get(appliedWorks, "", second) != nil {
		t.Error("the second AppliedManifestWork is still there")
	}
	if b := c.get(configMaps, c.namespace, "b"); b == nil || b.GetUID() != was {
		t.Error("the merge deleted an object")
	}
	if diff := cmp.Diff([]string{other.appliedName(), w.appliedName()}, c.owners("a"), sorted); diff != "" {
		t.Errorf("owners of a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{w.appliedName()}, c.owners("b")); diff != "" {
		t.Errorf("owners of b (-want +got):\n%s", diff)
	}
	if c.get(configMaps, c.namespace, "dropped") != nil {
		t.Error("what only the second had was not pruned")
	}
	if diff := cmp.Diff([]string{"configmaps/a", "configmaps/b"}, w.inventory()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}

func TestDeleteTakesAllAppliedManifestWorks(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	second := w.second("second-"+c.namespace, "a", "older")
	c.patch(appliedWorks, "", second, blocker)
	if _, err := w.delete(); err == nil {
		t.Error("Delete confirmed while an AppliedManifestWork is left")
	}
	c.patch(appliedWorks, "", second, `{"metadata":{"finalizers":null}}`)
	if _, err := w.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	for _, name := range []string{"a", "b", "older"} {
		if c.get(configMaps, c.namespace, name) != nil {
			t.Errorf("%s is still there", name)
		}
	}
}

var sorted = cmpopts.SortSlices(func(a, b string) bool { return a < b })
