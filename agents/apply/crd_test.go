package apply_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// widget returns a CRD, an instance of it, and where the instances are served.
func (c *cluster) widget(kind string) (crd, instance map[string]any, served schema.GroupVersionResource) {
	lower := strings.ToLower(kind)
	served = schema.GroupVersionResource{Group: c.namespace + ".example.com", Version: "v1", Resource: lower + "s"}
	crd = map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": served.Resource + "." + served.Group},
		"spec": map[string]any{
			"group": served.Group, "scope": "Namespaced",
			"names": map[string]any{"kind": kind, "plural": served.Resource, "singular": lower, "listKind": kind + "List"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{
					"type": "object", "x-kubernetes-preserve-unknown-fields": true,
				}},
			}},
		},
	}
	instance = map[string]any{
		"apiVersion": served.Group + "/v1", "kind": kind,
		"metadata": map[string]any{"name": "w", "namespace": c.namespace}, "spec": map[string]any{"size": 0},
	}
	return crd, instance, served
}

func TestCRDAndInstanceInOnePass(t *testing.T) {
	c := newCluster(t)
	crd, instance, served := c.widget("Widget")
	w := c.newWork("web", instance, crd)
	status := w.mustApply()
	for i := range 2 {
		if got := manifestCondition(status, i, workv1.ManifestApplied); got != manifestApplied {
			t.Errorf("Applied of manifest %d = %s", i, got)
		}
	}
	if got := status.ResourceStatus.Manifests[0].ResourceMeta; got.Kind != "Widget" || got.Ordinal != 0 {
		t.Errorf("the first manifest in the status is %v", got)
	}
	if c.get(served, c.namespace, "w") == nil {
		t.Error("the instance is missing")
	}
	w.mustApply()
	if _, err := w.delete(); err != nil {
		// The CRD takes a moment to finish its instances.
		c.until("the work is gone", func() bool { _, err = w.delete(); return err == nil })
	}
	if c.get(crds, "", served.Resource+"."+served.Group) != nil {
		t.Error("the CRD is still there")
	}
}

func TestMissingKindIsReportedAndComesLater(t *testing.T) {
	c := newCluster(t)
	crd, instance, served := c.widget("Gadget")
	w := c.newWork("web", instance, c.configMap("a", nil))
	status, err := w.apply()
	if err == nil {
		t.Error("Apply did not ask for another try")
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("Applied of the instance = %s", got)
	}
	if got := manifestCondition(status, 1, workv1.ManifestApplied); got != manifestApplied {
		t.Errorf("Applied of the config map = %s", got)
	}
	c.wire.requests()
	for range 20 {
		_, _ = w.apply()
	}
	asked := slices.DeleteFunc(c.wire.requests(), func(r string) bool { return !strings.Contains(r, served.Group) })
	if len(asked) > 1 {
		t.Errorf("20 tries asked %d times for the missing kind", len(asked))
	}

	c.newWork("definitions", crd).mustApply()
	c.until("the instance is applied", func() bool { _, err := w.apply(); return err == nil })
	if c.get(served, c.namespace, "w") == nil {
		t.Error("the instance is missing")
	}
}

func TestRemovedCRDIsNoticed(t *testing.T) {
	c := newCluster(t)
	crd, instance, served := c.widget("Gizmo")
	definitions := c.newWork("definitions", crd)
	definitions.mustApply()
	w := c.newWork("web", instance)
	c.until("the instance is applied", func() bool { _, err := w.apply(); return err == nil })
	c.run()
	c.until("the watch vouches for the instance", func() bool {
		c.wire.requests()
		w.mustApply()
		return len(c.wire.requests()) == 0
	})
	c.remove(crds, "", served.Resource+"."+served.Group)
	c.untilTold("web-id")
	c.until("the instance is reported", func() bool {
		status, err := w.apply()
		return err != nil && condition(status, workv1.WorkApplied) == workFailed
	})
	if _, err := w.delete(); err != nil {
		t.Errorf("Delete without the CRD: %v", err)
	}
}

func TestInstallsItsOwnCRD(t *testing.T) {
	c := newCluster(t)
	if err := c.applier.InstallCRD(c.ctx); err != nil {
		t.Errorf("InstallCRD a second time: %v", err)
	}
	if c.get(crds, "", "appliedmanifestworks.work.open-cluster-management.io") == nil {
		t.Error("the CRD is missing")
	}
}

func TestOrderOfWrites(t *testing.T) {
	c := newCluster(t)
	crd, instance, served := c.widget("Part")
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": c.namespace + "-new"}}
	inside := c.configMap("inside", nil)
	inside["metadata"].(map[string]any)["namespace"] = c.namespace + "-new"
	w := c.newWork("web", instance, c.deployment("d", 1), inside, c.service("s"), crd, namespace)
	c.wire.requests()
	w.mustApply()
	var got []string
	for _, r := range c.wire.writes() {
		if method, resource, _ := strings.Cut(r, " "); method == http.MethodPost {
			got = append(got, path.Base(resource))
		}
	}
	want := []string{"appliedmanifestworks", "customresourcedefinitions", "namespaces", "configmaps", "services", "deployments", served.Resource}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order of creation (-want +got):\n%s", diff)
	}
	w.last.Payload = nil
	c.restart(apply.Options{})
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("a restarted agent wrote %v", got)
	}
}

// The version in which an object was applied may not be served any more when it
// is to go; the object is still there.
func TestRemovesWhatAnotherVersionServes(t *testing.T) {
	for _, tt := range []struct {
		reason string
		remove func(*story) error
	}{
		{"the work drops it", func(w *story) error {
			w.set(w.configMap("a", nil))
			_, err := w.apply()
			return err
		}},
		{"the work is deleted", func(w *story) error { _, err := w.delete(); return err }},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			crd, instance, v1 := c.widget("Relic")
			first := crd["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
			second := maps.Clone(first)
			second["name"], second["storage"] = "v2", false
			crd["spec"].(map[string]any)["versions"] = []any{first, second}
			if _, err := c.of(crds, "").Create(c.ctx, &unstructured.Unstructured{Object: crd}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			w := c.newWork("web", instance)
			c.until("the instance is applied", func() bool { _, err := w.apply(); return err == nil })

			v2 := v1
			v2.Version = "v2"
			first["served"], first["storage"], second["storage"] = false, false, true
			patch, err := json.Marshal(map[string]any{"spec": map[string]any{"versions": []any{first, second}}})
			if err != nil {
				t.Fatal(err)
			}
			c.patch(crds, "", v1.Resource+"."+v1.Group, string(patch))
			c.until("only the other version is served", func() bool {
				_, err := c.of(v1, c.namespace).Get(c.ctx, "w", metav1.GetOptions{})
				return apierrors.IsNotFound(err) && c.get(v2, c.namespace, "w") != nil
			})
			c.restart(apply.Options{})
			if err := tt.remove(w); err != nil {
				c.until("the object is removed", func() bool { return tt.remove(w) == nil })
			}
			if c.get(v2, c.namespace, "w") != nil {
				t.Error("the object is still there, and nobody knows of it")
			}
		})
	}
}
