package faults

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// widgetResource is of a kind that works use and somebody else installs. It is
// stored in another version.
var widgetResource = schema.GroupVersionResource{Group: "faults.fleetcast.io", Version: "v2", Resource: "widgets"}

const widgetCRD = "widgets.faults.fleetcast.io"

// What may happen to the kinds that a cluster serves.
var kindCases = []faultCase{
	{
		id: "44a", title: "the kind of some manifests is installed late; meanwhile a work with one is deleted", promises: "P1 P3 P10 P11", bound: time.Minute,
		run: kindInstalledLate, afterwards: widgetsAreThere,
	},
	{
		id: "44b", title: "a kind in use is removed and comes back; meanwhile a work with one is deleted, and one whose object a finalizer holds", promises: "P1 P3 P10 P11", bound: time.Minute,
		run: kindRemoved, afterwards: widgetsAreThere,
	},
	{
		id: "44c", title: "the conversion webhook of a kind in use is away while works with it change and go", promises: "P1 P3 P10 P11", bound: time.Minute,
		run: conversionAway, afterwards: widgetsAreThere,
	},
}

func widget(k key, size int64) map[string]any {
	return map[string]any{
		"apiVersion": "faults.fleetcast.io/v2", "kind": "Widget",
		"metadata": map[string]any{"name": k.name, "namespace": "default"}, "spec": map[string]any{"size": size},
	}
}

// installWidgets has the cluster serve the kind. Without a conversion all
// versions are the same.
func (c *cluster) installWidgets(w *world, conversion map[string]any) {
	w.t.Helper()
	version := func(name string, stored bool) any {
		return map[string]any{
			"name": name, "served": true, "storage": stored,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		}
	}
	crd := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": widgetCRD},
		"spec": map[string]any{
			"group": widgetResource.Group, "scope": "Namespaced",
			"names":    map[string]any{"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
			"versions": []any{version("v1", true), version("v2", false)},
		},
	}
	if conversion != nil {
		crd["spec"].(map[string]any)["conversion"] = conversion
	}
	_, err := c.dynamic(w).Resource(crdResource).Create(w.t.Context(), &unstructured.Unstructured{Object: crd}, metav1.CreateOptions{})
	w.must(err)
}

func (c *cluster) removeWidgets(w *world) {
	w.t.Helper()
	w.must(c.dynamic(w).Resource(crdResource).Delete(w.t.Context(), widgetCRD, metav1.DeleteOptions{}))
}

func (c *cluster) widgetsRemoved(w *world) error {
	_, err := c.dynamic(w).Resource(crdResource).Get(w.t.Context(), widgetCRD, metav1.GetOptions{})
	if err == nil {
		return errors.New("the CRD is still there")
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// size is what the cluster has of a widget, or an error that says that there is
// none.
func (c *cluster) size(w *world, k key) (int64, error) {
	u, err := c.dynamic(w).Resource(widgetResource).Namespace(metav1.NamespaceDefault).Get(w.t.Context(), k.name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	size, _, err := unstructured.NestedInt64(u.Object, "spec", "size")
	return size, err
}

// finalizer holds a widget, or lets it go.
func (c *cluster) finalizer(w *world, k key, finalizers ...string) {
	w.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": finalizers}})
	w.must(err)
	_, err = c.dynamic(w).Resource(widgetResource).Namespace(metav1.NamespaceDefault).
		Patch(w.t.Context(), k.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "somebody-else"})
	w.must(err)
}

// Roles of the works in these cases.
const (
	gone  = 3 // It is deleted during the fault.
	plain = 4 // It has no widget.
	held  = 5 // Its widget has a finalizer.
)

// widgetsAreThere holds the widgets against what works have in the end.
func widgetsAreThere(w *world) {
	w.t.Helper()
	c := w.clusters["c1"]
	for i, k := range works("c1", 6) {
		size, err := c.size(w, k)
		switch want := i < gone; {
		case want && (err != nil || size != 2):
			w.t.Errorf("P1: the widget of %s has size %d, %v, want 2", k, size, err)
		case !want && !apierrors.IsNotFound(err):
			w.t.Errorf("P3: the widget of %s is there: %v", k, err)
		}
	}
}

// told holds that each manifest has its own fate and the hub knows it.
func (w *world) told(k key, text string) {
	w.t.Helper()
	await(w.t, "the hub is told of the manifest that can be applied", func() error { return w.hub.tells(w.t.Context(), k, 0, "True", "") })
	await(w.t, "the hub is told of the one that cannot", func() error { return w.hub.tells(w.t.Context(), k, 1, "False", text) })
}

func kindInstalledLate(w *world) {
	all, c := works("c1", 5), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	for _, k := range all[:plain] {
		w.putWith(k, widget(k, 1))
	}
	for _, k := range all[:plain] {
		w.told(k, "is its CustomResourceDefinition installed?")
	}
	w.put(all[plain])
	w.remove(all[gone])
	await(w.t, "other works go on", func() error { return w.hub.tells(w.t.Context(), all[plain], 0, "True", "") })
	await(w.t, "the deleted work is gone", func() error {
		if version := c.holds()[all[gone].name]; version != 0 {
			return fmt.Errorf("the cluster has version %d", version)
		}
		return nil
	})
	w.lasts(20 * time.Second)
	for _, k := range all[:gone] {
		w.putWith(k, widget(k, 2))
	}
	c.installWidgets(w, nil)
}

func kindRemoved(w *world) {
	all, c := works("c1", 6), w.clusters["c1"]
	c.installWidgets(w, nil)
	w.putAll(all)
	for i, k := range all {
		if i != plain {
			w.putWith(k, widget(k, 1))
		}
	}
	w.converge()
	c.finalizer(w, all[held], "faults.fleetcast.io/hold")
	c.removeWidgets(w)
	w.remove(all[held])
	await(w.t, "the hub is told what holds the deletion", func() error {
		return w.hub.tellsDeleting(w.t.Context(), all[held], "finalizers faults.fleetcast.io/hold")
	})
	w.put(all[plain])
	await(w.t, "other works go on", func() error { return w.hub.tells(w.t.Context(), all[plain], 0, "True", "") })
	c.finalizer(w, all[held])
	await(w.t, "the kind is gone", func() error { return c.widgetsRemoved(w) })
	for _, k := range all[:gone] {
		w.putWith(k, widget(k, 2))
		w.told(k, "")
	}
	w.remove(all[gone])
	w.lasts(20 * time.Second)
	c.installWidgets(w, nil)
}

func conversionAway(w *world) {
	all, c := works("c1", 5), w.clusters["c1"]
	hook := newConversion(w)
	hook.start()
	c.installWidgets(w, hook.conversion())
	w.putAll(all)
	for _, k := range all[:plain] {
		w.putWith(k, widget(k, 1))
	}
	w.converge()
	hook.stop()
	for _, k := range all[:gone] {
		w.putWith(k, widget(k, 2))
	}
	w.remove(all[gone])
	w.put(all[plain])
	for _, k := range all[:gone] {
		w.told(k, "conversion webhook")
	}
	await(w.t, "the hub is told what the deletion waits for", func() error {
		return w.hub.tellsDeleting(w.t.Context(), all[gone], "conversion webhook")
	})
	await(w.t, "other works go on", func() error { return w.hub.tells(w.t.Context(), all[plain], 0, "True", "") })
	w.lasts(20 * time.Second)
	hook.start()
}

// A conversion is the webhook that turns versions of a kind into each other,
// which here are the same but for their name.
type conversion struct {
	w       *world
	address string
	ca      []byte
	server  *httptest.Server
}

func newConversion(w *world) *conversion {
	w.t.Helper()
	h := &conversion{w: w, address: freeAddress(w.t)}
	w.t.Cleanup(h.stop)
	return h
}

func (h *conversion) start() {
	h.w.t.Helper()
	listener, err := new(net.ListenConfig).Listen(h.w.t.Context(), "tcp", h.address)
	h.w.must(err)
	h.server = httptest.NewUnstartedServer(http.HandlerFunc(convert))
	_ = h.server.Listener.Close()
	h.server.Listener = listener
	h.server.StartTLS()
	h.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.server.Certificate().Raw})
}

func (h *conversion) stop() {
	if h.server == nil {
		return
	}
	h.server.CloseClientConnections()
	h.server.Close()
	h.server = nil
}

// conversion is what the CRD says of the webhook.
func (h *conversion) conversion() map[string]any {
	return map[string]any{
		"strategy": "Webhook",
		"webhook": map[string]any{
			"conversionReviewVersions": []any{"v1"},
			"clientConfig":             map[string]any{"url": "https://" + h.address + "/convert", "caBundle": base64.StdEncoding.EncodeToString(h.ca)},
		},
	}
}

func convert(w http.ResponseWriter, r *http.Request) {
	var review apiextensionsv1.ConversionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "no ConversionReview", http.StatusBadRequest)
		return
	}
	response := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, raw := range review.Request.Objects {
		var u unstructured.Unstructured
		if err := json.Unmarshal(raw.Raw, &u.Object); err != nil {
			http.Error(w, "no object", http.StatusBadRequest)
			return
		}
		u.SetAPIVersion(review.Request.DesiredAPIVersion)
		response.ConvertedObjects = append(response.ConvertedObjects, runtime.RawExtension{Object: &u})
	}
	review.Request, review.Response = nil, response
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review) // Whoever asked may have gone.
}
