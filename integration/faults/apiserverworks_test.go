package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// partLabel is on what a work has beside its own object, and says whose it is.
const partLabel = "faults.fleetcast.io/work"

// part is one more object of a work.
func part(k key, name string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": k.name + "-" + name, "namespace": "default", "labels": map[string]any{partLabel: k.name}},
	}
}

// putWith updates a work so that it has these objects beside its own, and no
// others.
func (w *world) putWith(k key, more ...map[string]any) {
	w.t.Helper()
	version := w.record.next(k)
	content := spec(k, version, 100)
	manifests := []any{manifest(k, version, 100)}
	for _, m := range more {
		manifests = append(manifests, m)
	}
	content["workload"] = map[string]any{"manifests": manifests}
	patch, err := json.Marshal(map[string]any{"spec": content})
	w.must(err)
	await(w.t, fmt.Sprintf("the hub takes %s", k), func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		u, err := w.hub.client.Resource(workResource).Namespace(k.cluster).Patch(ctx, k.name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err == nil {
			w.record.accepted(k, version, u.GetGeneration())
		}
		return err
	})
}

// hasParts says how what the cluster has beside the work's own object differs
// from these parts.
func (c *cluster) hasParts(ctx context.Context, k key, names ...string) error {
	list, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: partLabel + "=" + k.name})
	if err != nil {
		return err
	}
	var have []string
	for i := range list.Items {
		have = append(have, strings.TrimPrefix(list.Items[i].Name, k.name+"-"))
	}
	if slices.Sort(have); !slices.Equal(have, names) {
		return fmt.Errorf("cluster %s has the parts %v of %s, want %v", c.name, have, k.name, names)
	}
	return nil
}

// uids are those of the works' objects on the cluster.
func (c *cluster) uids(w *world, all []key) map[string]types.UID {
	w.t.Helper()
	found := map[string]types.UID{}
	for _, k := range all {
		m, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(w.t.Context(), k.name, metav1.GetOptions{})
		w.must(err)
		found[k.name] = m.UID
	}
	return found
}

// kept fails the case if an object is not the one that it was.
func (c *cluster) kept(w *world, all []key, before map[string]types.UID) {
	w.t.Helper()
	if after := c.uids(w, all); !maps.Equal(before, after) {
		w.t.Errorf("cluster %s has other objects than before: UIDs %v, had %v", c.name, after, before)
	}
}

// said is all that the hub has been told of a work.
func (h *hub) said(ctx context.Context, k key) (conditions []any, manifests []any, err error) {
	u, err := h.client.Resource(workResource).Namespace(k.cluster).Get(ctx, k.name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	conditions, _, _ = unstructured.NestedSlice(u.Object, "status", "conditions")
	manifests, _, _ = unstructured.NestedSlice(u.Object, "status", "resourceStatus", "manifests")
	return conditions, manifests, nil
}

// tells says whether the hub was told that the manifest of that ordinal has the
// condition Applied with this status and in its message this text.
func (h *hub) tells(ctx context.Context, k key, ordinal int, status, text string) error {
	_, manifests, err := h.said(ctx, k)
	if err != nil {
		return err
	}
	if ordinal >= len(manifests) {
		return fmt.Errorf("the hub knows of %d manifests of %s", len(manifests), k)
	}
	m, ok := manifests[ordinal].(map[string]any)
	if !ok {
		return fmt.Errorf("status of manifest %d of %s is %T", ordinal, k, manifests[ordinal])
	}
	conditions, _, _ := unstructured.NestedSlice(m, "conditions")
	return finds(conditions, "Applied", status, text)
}

// tellsDeleting says whether the hub was told that the deletion of the work
// waits for what the text names.
func (h *hub) tellsDeleting(ctx context.Context, k key, text string) error {
	conditions, _, err := h.said(ctx, k)
	if err != nil {
		return err
	}
	return finds(conditions, "Deleting", "True", text)
}

func finds(conditions []any, kind, status, text string) error {
	for _, each := range conditions {
		c, ok := each.(map[string]any)
		if !ok || c["type"] != kind {
			continue
		}
		message, _ := c["message"].(string)
		if c["status"] != status || !strings.Contains(message, text) {
			return fmt.Errorf("%s is %v: %s; want %s with %q", kind, c["status"], message, status, text)
		}
		return nil
	}
	return fmt.Errorf("there is no condition %s, want one with %q", kind, text)
}
