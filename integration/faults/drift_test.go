package faults

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// drift has somebody else change what a work has on the cluster.
func (c *cluster) drift(w *world, k key) {
	w.t.Helper()
	_, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Patch(w.t.Context(), k.name,
		types.MergePatchType, []byte(`{"data":{"filler":"drifted"}}`), metav1.PatchOptions{FieldManager: "somebody-else"})
	w.must(err)
}

// vanish has somebody else remove it.
func (c *cluster) vanish(w *world, k key) {
	w.t.Helper()
	w.record.tolerate(k)
	w.must(c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Delete(w.t.Context(), k.name, metav1.DeleteOptions{}))
}

// back says which of the works' objects are not as the works have them.
func (c *cluster) back(w *world, all ...key) error {
	for _, k := range all {
		m, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(w.t.Context(), k.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if m.Data["filler"] == "drifted" {
			return fmt.Errorf("%s is as somebody else left it", k)
		}
	}
	return nil
}
