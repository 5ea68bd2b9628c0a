package apply_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"
)

var secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

func (c *cluster) secret(kind string, data map[string]string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": kind,
		"metadata": map[string]any{"name": "s", "namespace": c.namespace}, "stringData": data,
	}
}

func TestRecreatesWhatCannotChange(t *testing.T) {
	for _, tt := range []struct {
		reason   string
		resource schema.GroupVersionResource
		name     string
		from, to func(*cluster) map[string]any
		field    string
		want     any
	}{
		{
			"a secret of another type", secrets, "s",
			func(c *cluster) map[string]any { return c.secret("Opaque", map[string]string{"x": "1"}) },
			func(c *cluster) map[string]any { return c.secret("example.com/key", map[string]string{"x": "1"}) },
			"type", "example.com/key",
		},
		{
			"an immutable config map", configMaps, "a",
			func(c *cluster) map[string]any {
				m := c.configMap("a", map[string]string{"x": "1"})
				m["immutable"] = true
				return m
			},
			func(c *cluster) map[string]any { return c.configMap("a", map[string]string{"x": "2"}) },
			"data",
			map[string]any{"x": "2"},
		},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			w := c.newWork("web", tt.from(c))
			w.mustApply()
			other := c.newWork("other", tt.from(c))
			other.mustApply()
			c.patch(tt.resource, c.namespace, tt.name, `{"metadata":{"labels":{"mine":"yes"}}}`)
			w.set(tt.to(c))
			status := w.mustApply()
			if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestApplied {
				t.Errorf("Applied = %s", got)
			}
			live := c.get(tt.resource, c.namespace, tt.name)
			if diff := cmp.Diff(tt.want, live.Object[tt.field]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.field, diff)
			}
			if len(live.GetOwnerReferences()) != 2 || live.GetLabels()["mine"] != "yes" {
				t.Errorf("owners %v, labels %v: want those of others kept", live.GetOwnerReferences(), live.GetLabels())
			}
		})
	}
}

// The old object stays if the server would refuse the new one.
func TestRecreatesNothingInvalid(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.secret("Opaque", map[string]string{"x": "1"}))
	w.mustApply()
	w.set(c.secret("kubernetes.io/dockerconfigjson", map[string]string{"x": "1"}))
	status, err := w.apply()
	if err == nil {
		t.Error("Apply did not ask for another try")
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("Applied = %s", got)
	}
	live := c.get(secrets, c.namespace, "s")
	if live == nil {
		t.Fatal("the secret is gone")
	}
	if got, _, _ := unstructured.NestedString(live.Object, "type"); got != "Opaque" {
		t.Errorf("type = %s", got)
	}
}
