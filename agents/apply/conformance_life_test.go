package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// deletes sets the delete option of the work's next generation.
func (s *story) deletes(o *workv1.DeleteOption) {
	s.work.Generation++
	s.work.Spec.DeleteOption = o
}

func selectively(rules ...workv1.OrphaningRule) *workv1.DeleteOption {
	return &workv1.DeleteOption{
		PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan,
		SelectivelyOrphan: &workv1.SelectivelyOrphan{OrphaningRules: rules},
	}
}

// wantOwned says which of the config maps belong to the work.
func wantOwned(t *testing.T, reason string, w *story, want map[string]bool) {
	t.Helper()
	got := map[string]bool{}
	for name := range want {
		u := w.get(configMaps, w.namespace, name)
		if u == nil {
			t.Errorf("%s: %s is gone", reason, name)
			continue
		}
		got[name] = len(u.GetOwnerReferences()) == 1 && u.GetOwnerReferences()[0].UID == w.appliedWork().UID
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: owned (-want +got):\n%s", reason, diff)
	}
}

func TestConformanceLife(t *testing.T) {
	t.Run("deleteOption", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
		w.mustApply()
		wantOwned(t, "no option means Foreground", w, map[string]bool{"a": true, "b": true})
		w.deletes(&workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan})
		w.mustApply()
		wantOwned(t, "Orphan", w, map[string]bool{"a": false, "b": false})
		w.deletes(selectively(workv1.OrphaningRule{Resource: "configmaps", Namespace: c.namespace, Name: "a"}))
		w.mustApply()
		wantOwned(t, "SelectivelyOrphan", w, map[string]bool{"a": false, "b": true})
		w.deletes(&workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground})
		w.mustApply()
		wantOwned(t, "Foreground again", w, map[string]bool{"a": true, "b": true})
		w.deletes(&workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan})
		w.set(c.configMap("b", nil))
		w.mustApply()
		wantOwned(t, "a manifest that goes under Orphan leaves its object", w, map[string]bool{"a": false, "b": false})
		if _, err := w.delete(); err != nil {
			t.Fatal(err)
		}
		if w.appliedWork() != nil || c.get(configMaps, c.namespace, "b") == nil {
			t.Error("the AppliedManifestWork is there, or its orphan is not")
		}
	})

	t.Run("orphaningRules", func(t *testing.T) {
		c := newCluster(t)
		for reason, tt := range map[string]struct {
			option *workv1.DeleteOption
			orphan bool
		}{
			"all four fields match": {selectively(workv1.OrphaningRule{Resource: "configmaps", Namespace: c.namespace, Name: "a"}), true},
			"no wildcards":          {selectively(workv1.OrphaningRule{Resource: "configmaps", Namespace: "*", Name: "*"}), false},
			"another group":         {selectively(workv1.OrphaningRule{Group: "apps", Resource: "configmaps", Namespace: c.namespace, Name: "a"}), false},
			"another namespace":     {selectively(workv1.OrphaningRule{Resource: "configmaps", Namespace: "x", Name: "a"}), false},
			"no rules":              {selectively(), false},
			"nil rules":             {&workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan}, false},
		} {
			w := c.newWork("web", c.configMap("a", nil))
			w.deletes(tt.option)
			w.mustApply()
			wantOwned(t, reason, w, map[string]bool{"a": !tt.orphan})
		}
	})

	t.Run("AppliedManifestWork creation and Labels", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil))
		w.mustApply()
		got := w.appliedWork()
		want := workv1.AppliedManifestWorkSpec{HubHash: c.hub, AgentID: "agent-" + c.hub, ManifestWorkName: "web"}
		if diff := cmp.Diff(want, got.Spec); diff != "" {
			t.Errorf("spec (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{api.AppliedWorkFinalizer}, got.Finalizers); diff != "" {
			t.Errorf("finalizers (-want +got):\n%s", diff)
		}
		if got.Labels["team"] != "blue" {
			t.Errorf("labels = %v, want those of the work", got.Labels)
		}
		w.work.Labels["team"] = "red"
		w.mustApply()
		if got := w.appliedWork().Labels["team"]; got != "red" {
			t.Errorf("label = %q after it changed", got)
		}
	})

	t.Run("Guard on first apply", func(t *testing.T) {
		c := newCluster(t)
		before := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
		before.mustApply()
		// The same work from a hub that was set up again at the same address.
		after := c.newWork("web", c.configMap("a", nil), map[string]any{
			"apiVersion": "example.com/v1", "kind": "Unheard", "metadata": map[string]any{"name": "u", "namespace": c.namespace},
		})
		after.work.UID = "new-id"
		if _, err := after.apply(); err == nil {
			t.Fatal("a kind that is not served was applied")
		}
		if c.get(configMaps, c.namespace, "b") == nil {
			t.Error("something was removed before the work was applied as a whole")
		}
		if _, err := before.delete(); err != nil {
			t.Fatal(err)
		}
		if c.get(configMaps, c.namespace, "a") == nil || c.get(configMaps, c.namespace, "b") == nil {
			t.Error("the deletion of the former work took what the new one has")
		}
		after.set(c.configMap("a", nil))
		after.mustApply()
		if c.get(configMaps, c.namespace, "b") != nil {
			t.Error("what the new work does not want is still there")
		}
	})

	t.Run("Deleting condition", func(t *testing.T) {
		c := newCluster(t)
		var manifests []any
		for i := range 8 {
			manifests = append(manifests, c.configMap(fmt.Sprint("m", i), nil))
		}
		w := c.newWork("web", manifests...)
		w.mustApply()
		for i := range 8 {
			c.patch(configMaps, c.namespace, fmt.Sprint("m", i),
				`{"metadata":{"finalizers":["example.com/1","example.com/2","example.com/3","example.com/4","example.com/5","example.com/6","example.com/7"]}}`)
		}
		status, err := w.delete()
		if err == nil {
			t.Fatal("it is said to be gone")
		}
		if got := condition(status, api.ConditionDeleting); got != "True WorkDeleting" {
			t.Errorf("Deleting = %s", got)
		}
		message := status.Conditions[len(status.Conditions)-1].Message
		for _, want := range []string{"configmaps " + c.namespace + "/m", "finalizers example.com/1, example.com/2", "and 2 more", "and 3 more"} {
			if !strings.Contains(message, want) {
				t.Errorf("message %q does not say %q", message, want)
			}
		}
		if again, _ := w.delete(); again.Conditions[len(again.Conditions)-1].Message != message {
			t.Error("the message changes though nothing did")
		}
	})

	t.Run("Delete chain", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil), c.configMap("others", nil))
		w.mustApply()
		c.patch(configMaps, c.namespace, "others", `{"metadata":{"ownerReferences":null}}`)
		c.patch(configMaps, c.namespace, "a", blocker)
		if _, err := w.delete(); err == nil {
			t.Fatal("it is said to be gone")
		}
		if got := w.appliedWork(); got == nil || got.DeletionTimestamp == nil {
			t.Errorf("AppliedManifestWork = %v, want it on its way out", got)
		}
		c.patch(configMaps, c.namespace, "a", `{"metadata":{"finalizers":null}}`)
		status, err := w.delete()
		if err != nil {
			t.Fatal(err)
		}
		if got := condition(status, api.ConditionDeleted); got != "True ManifestsDeleted" {
			t.Errorf("Deleted = %s", got)
		}
		if w.appliedWork() != nil || c.get(configMaps, c.namespace, "a") != nil {
			t.Error("something is left")
		}
		if c.get(configMaps, c.namespace, "others") == nil {
			t.Error("an object that others made their own is gone")
		}
	})

	t.Run("Shared objects", func(t *testing.T) {
		c := newCluster(t)
		one, two := c.newWork("one", c.configMap("a", nil)), c.newWork("two", c.configMap("a", nil))
		one.mustApply()
		two.mustApply()
		c.patch(configMaps, c.namespace, "a", `{"metadata":{"labels":{"seen":"yes"}}}`)
		for _, w := range []*story{one, two} {
			if got := len(c.owners("a")); got != 2 && w == one {
				t.Errorf("%d owners, want both works", got)
			}
			if _, err := w.delete(); err != nil {
				t.Fatal(err)
			}
			if there := c.get(configMaps, c.namespace, "a") != nil; there != (w == one) {
				t.Errorf("after the deletion of work %s the object is there: %v", w.work.Name, there)
			}
		}
	})
}
