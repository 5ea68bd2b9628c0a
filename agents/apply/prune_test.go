package apply_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

const blocker = `{"metadata":{"finalizers":["example.com/wait"]}}`

func TestPrunesWhatANewGenerationDropped(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	w.set(c.configMap("b", nil), c.configMap("c", nil))
	w.mustApply()
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("a is still there")
	}
	if diff := cmp.Diff([]string{"configmaps/b", "configmaps/c"}, w.inventory()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}

// What is not gone stays listed, over further generations and a restart.
func TestPruneIsNotForgotten(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	c.patch(configMaps, c.namespace, "a", blocker)
	w.set(c.configMap("b", nil))
	if _, err := w.apply(); err == nil || !strings.Contains(err.Error(), "example.com/wait") {
		t.Fatalf("Apply = %v, want the finalizer named", err)
	}
	w.set(c.configMap("c", nil))
	c.restart(apply.Options{})
	if _, err := w.apply(); err == nil {
		t.Fatal("Apply did not ask for another try")
	}
	if diff := cmp.Diff([]string{"configmaps/a", "configmaps/c"}, w.inventory()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
	c.patch(configMaps, c.namespace, "a", `{"metadata":{"finalizers":null}}`)
	w.mustApply()
	if diff := cmp.Diff([]string{"configmaps/c"}, w.inventory()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}

func TestPruneLeavesWhatIsNotOurs(t *testing.T) {
	c := newCluster(t)
	one := c.newWork("one", c.configMap("shared", nil), c.configMap("orphan", nil), c.configMap("adopted", nil))
	one.work.Spec.DeleteOption = &workv1.DeleteOption{
		PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan,
		SelectivelyOrphan: &workv1.SelectivelyOrphan{OrphaningRules: []workv1.OrphaningRule{
			{Resource: "configmaps", Namespace: c.namespace, Name: "orphan"},
		}},
	}
	one.mustApply()
	two := c.newWork("two", c.configMap("shared", nil))
	two.mustApply()
	c.patch(configMaps, c.namespace, "adopted", `{"metadata":{"ownerReferences":null}}`)
	one.set(c.configMap("last", nil))
	one.mustApply()

	for _, name := range []string{"shared", "orphan", "adopted"} {
		if c.get(configMaps, c.namespace, name) == nil {
			t.Errorf("%s was deleted", name)
		}
	}
	refs := c.get(configMaps, c.namespace, "shared").GetOwnerReferences()
	if len(refs) != 1 || refs[0].UID != two.appliedWork().UID {
		t.Errorf("owners of the shared object = %v, want the second work", refs)
	}
	if _, err := two.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if c.get(configMaps, c.namespace, "shared") != nil {
		t.Error("the last owner left the shared object behind")
	}
}

// While it is not known which object a manifest means, nothing is pruned: it
// may be the very object that seems to be dropped.
func TestNoPruneWhileAManifestIsUnknown(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	w.set(c.configMap("b", nil), map[string]any{"apiVersion": "v1", "metadata": map[string]any{"name": "a"}})
	if _, err := w.apply(); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if c.get(configMaps, c.namespace, "a") == nil {
		t.Error("a was deleted")
	}
	w.set()
	if _, err := w.apply(); err != nil {
		t.Fatalf("Apply without manifests: %v", err)
	}
	if c.get(configMaps, c.namespace, "b") == nil {
		t.Error("b was deleted by a work without manifests")
	}
}

// A work that drops a manifest and orphans its objects in one step means the
// dropped one as well.
func TestPruneOrphansWhatTheWorkOrphansNow(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	w.mustApply()
	w.set(c.configMap("b", nil))
	w.work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	w.mustApply()
	a := c.get(configMaps, c.namespace, "a")
	if a == nil || len(a.GetOwnerReferences()) != 0 {
		t.Errorf("a = %v, want it there and without owners", a)
	}
	if diff := cmp.Diff([]string{"configmaps/b"}, w.inventory()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}

func TestDelete(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil), c.deployment("d", 1))
	w.mustApply()
	c.patch(configMaps, c.namespace, "a", blocker)
	status, err := w.delete()
	if err == nil || !strings.Contains(err.Error(), "configmaps "+c.namespace+"/a, finalizers example.com/wait") {
		t.Fatalf("Delete = %v, want the blocker named", err)
	}
	if got := condition(status, api.ConditionDeleting); got != "True WorkDeleting" {
		t.Errorf("Deleting = %s", got)
	}
	if got := condition(status, workv1.WorkApplied); got != workApplied {
		t.Errorf("Applied = %s, want what was last said", got)
	}
	if c.get(configMaps, c.namespace, "b") != nil || c.get(deployments, c.namespace, "d") != nil {
		t.Error("one blocked object kept the others")
	}
	c.restart(apply.Options{})
	c.patch(configMaps, c.namespace, "a", `{"metadata":{"finalizers":null}}`)
	if _, err := w.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	deleted, err := w.last.Deleted()
	if err != nil || !deleted {
		t.Errorf("Deleted = %v, %v", deleted, err)
	}
	if w.appliedWork() != nil {
		t.Error("the AppliedManifestWork is still there")
	}
	if _, err := w.delete(); err != nil {
		t.Errorf("Delete a second time: %v", err)
	}
}

// The work orphaned its objects while the agent was away and then was deleted:
// all that the agent gets is the deletion.
func TestDeleteOrphans(t *testing.T) {
	rules := func(name, namespace string) *workv1.DeleteOption {
		return &workv1.DeleteOption{
			PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan,
			SelectivelyOrphan: &workv1.SelectivelyOrphan{OrphaningRules: []workv1.OrphaningRule{
				{Resource: "configmaps", Namespace: namespace, Name: name},
			}},
		}
	}
	for _, tt := range []struct {
		reason string
		option func(namespace string) *workv1.DeleteOption
		held   bool // The option is in what the agent holds, not in the deletion.
		stays  []string
	}{
		{"all", func(string) *workv1.DeleteOption {
			return &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
		}, false, []string{"a", "b"}},
		{"one", func(ns string) *workv1.DeleteOption { return rules("a", ns) }, false, []string{"a"}},
		{"one, as the agent knew", func(ns string) *workv1.DeleteOption { return rules("b", ns) }, true, []string{"b"}},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
			w.mustApply()
			w.work.Spec.DeleteOption = tt.option(c.namespace)
			held := w.bundle()
			w.work.DeletionTimestamp = &metav1.Time{Time: time.Now()}
			deletion := w.bundle()
			if tt.held {
				deletion.Metadata, deletion.Payload = held.Metadata, held.Payload
			}
			report, err := c.applier.Delete(c.ctx, deletion, w.last)
			if err != nil {
				t.Fatalf("Delete: %v", err)
			}
			if deleted, err := report.Deleted(); err != nil || !deleted {
				t.Errorf("Deleted = %v, %v", deleted, err)
			}
			for _, name := range []string{"a", "b"} {
				var want []string
				if slices.Contains(tt.stays, name) {
					want = []string{}
				}
				if diff := cmp.Diff(want, c.owners(name)); diff != "" {
					t.Errorf("owners of %s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

func TestDeleteOfAWorkThatNeverWas(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	status, err := w.delete()
	if err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if got := condition(status, api.ConditionDeleted); got != "True ManifestsDeleted" {
		t.Errorf("Deleted = %s", got)
	}
	if got := status.Conditions[0].Message; got != "The manifests are deleted from the cluster cluster1" {
		t.Errorf("message = %q", got)
	}
}

// A deletion may say nothing but the ID.
func TestDeleteByID(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	w.mustApply()
	c.restart(apply.Options{})
	b := w.bundle()
	b.Metadata, b.Payload, b.DeletedAt = nil, nil, time.Now()
	report, err := c.applier.Delete(c.ctx, b, w.last)
	if err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if deleted, err := report.Deleted(); err != nil || !deleted {
		t.Errorf("Deleted = %v, %v", deleted, err)
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("the object is still there")
	}
}

// The deletion of a work must not reach the one that took its name.
func TestDeleteSparesTheNextWorkOfTheName(t *testing.T) {
	c := newCluster(t)
	a := c.newWork("web", c.configMap("a", nil), c.configMap("both", nil))
	a.mustApply()
	b := c.newWork("web", c.configMap("b", nil), c.configMap("both", nil))
	b.work.UID = "another-id"
	b.mustApply()
	if _, err := a.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if c.get(configMaps, c.namespace, "b") == nil || c.get(configMaps, c.namespace, "both") == nil {
		t.Error("the deletion took the objects of the next work")
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("the next work did not prune what it does not have")
	}
}

func TestSourcesDoNotShareAName(t *testing.T) {
	c := newCluster(t)
	a := c.newWork("web", c.configMap("a", nil))
	a.mustApply()
	b := c.newWork("web", c.configMap("b", nil))
	b.src = "stranger"
	status, err := b.apply()
	if err == nil || !strings.Contains(err.Error(), a.appliedName()+": the name is taken by a work of another source") {
		t.Errorf("Apply = %v, want the AppliedManifestWork named", err)
	} else if strings.Contains(err.Error(), a.src) {
		t.Errorf("Apply = %v, which names the other source", err)
	}
	if got := condition(status, workv1.WorkApplied); got != workFailed {
		t.Errorf("Applied = %s", got)
	}
	if _, err := b.delete(); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if c.get(configMaps, c.namespace, "a") == nil {
		t.Error("a stranger deleted the object")
	}
}

func TestDeleteWithoutTheServer(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	w.mustApply()
	c.wire.cut(func(*http.Request) bool { return true })
	if _, err := w.delete(); !errors.Is(err, errCut) {
		t.Errorf("Delete = %v", err)
	}
	if deleted, _ := w.last.Deleted(); deleted {
		t.Error("the report confirms a deletion that nobody saw")
	}
}
