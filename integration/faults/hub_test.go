package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

var workResource = schema.GroupVersionResource{Group: "work.open-cluster-management.io", Version: "v1", Resource: "manifestworks"}

// A hub is an API server and the program that dispatches its works.
type hub struct {
	*process
	source  string
	server  *apitest.Server
	api     *link // Between the program and its API server.
	link    *link // Between the program and the broker.
	metrics string
	health  string
	client  dynamic.Interface
	core    kubernetes.Interface
	works   cache.Store
}

// newHub starts an API server; the program is not started yet.
func (w *world) newHub(name string, flags ...string) *hub {
	w.t.Helper()
	h := &hub{source: "hub1", server: apitest.Start(w.t, apitest.Hub), metrics: freeAddress(w.t), health: freeAddress(w.t)}
	h.link = newLink(w.t, w.broker.servers()...)
	h.api = newLink(w.t, apiAddress(w.t, h.server))
	var err error
	if h.client, err = dynamic.NewForConfig(h.server.Config()); err != nil {
		w.t.Fatal(err)
	}
	if h.core, err = kubernetes.NewForConfig(h.server.Config()); err != nil {
		w.t.Fatal(err)
	}
	h.process = h.program(w, name, flags...)
	return h
}

// openHub starts a hub and returns when it takes works.
func (w *world) openHub(name string, flags ...string) *hub {
	w.t.Helper()
	h := w.newHub(name, flags...)
	w.run(h.process)
	await(w.t, "the hub takes works", func() error {
		_, err := h.client.Resource(workResource).List(w.t.Context(), metav1.ListOptions{Limit: 1})
		return err
	})
	for cluster := range w.clusters {
		w.must(h.join(w.t.Context(), cluster))
	}
	h.watch(w)
	return h
}

// dispatches says whether the hub leads and has a session. A replica that waits
// for the lead is ready, too.
func (h *hub) dispatches(ctx context.Context) error {
	if err := h.logged(dispatching); err != nil {
		return err
	}
	return probe(ctx, h.health, "/readyz")
}

// fenced says whether the hub knows that another one leads.
func (h *hub) fenced(ctx context.Context) error {
	err := probe(ctx, h.health, "/readyz?verbose")
	if err == nil {
		return errors.New("the hub is ready")
	}
	if !strings.Contains(err.Error(), "[-]broker") {
		return err
	}
	return h.logged("another one leads under the same source ID")
}

// program is a process of the hub's program; several replicas share what the
// hub has but for their ports.
func (h *hub) program(w *world, name string, flags ...string) *process {
	w.t.Helper()
	program := binary(w.t, "fleetcast-hub", "../../cmd/hub")
	kubeconfig := behind(w.t, h.server, h.api)
	p := &process{name: name, log: filepath.Join(w.t.ArtifactDir(), name+".log")}
	p.command = func() *exec.Cmd {
		return exec.Command(program, append([]string{
			"--kubeconfig", kubeconfig, "--broker", w.broker.url(h.link), "--source-id", h.source,
			"--install-crds", "--log-level=debug", "--leader-elect=false", // A killed leader is waited for.
			"--metrics-bind-address", h.metrics, "--health-probe-bind-address", h.health,
		}, flags...)...)
	}
	w.t.Cleanup(p.kill)
	return p
}

// apiAddress is the host and port of an API server.
func apiAddress(t testing.TB, s *apitest.Server) string {
	t.Helper()
	_, address, ok := strings.Cut(s.Config().Host, "://")
	if !ok {
		t.Fatalf("API server's address is %q", s.Config().Host)
	}
	return address
}

// behind returns a kubeconfig whose server is the link's.
func behind(t testing.TB, s *apitest.Server, l *link) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + l.hosts()
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// watch keeps the hub's works at hand and has the record told of those that go.
// The CRD must be there.
func (h *hub) watch(w *world) {
	w.t.Helper()
	factory := dynamicinformer.NewDynamicSharedInformerFactory(h.client, 0)
	informer := factory.ForResource(workResource).Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(object any) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		if u, ok := object.(*unstructured.Unstructured); ok {
			w.forgotten(h, u)
		}
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	stop := make(chan struct{})
	factory.Start(stop)
	w.t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	if !cache.WaitForCacheSync(w.t.Context().Done(), informer.HasSynced) {
		w.t.Fatal("the hub's works cannot be watched")
	}
	h.works = informer.GetStore()
}

// forgotten looks at the cluster of a work that is not on the hub any more.
func (w *world) forgotten(h *hub, u *unstructured.Unstructured) {
	k := key{u.GetNamespace(), u.GetName()}
	c := w.clusters[k.cluster]
	if h != w.hub || c == nil || c.dead {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	there, err := c.there(ctx, k.name)
	if err != nil {
		return // The cluster's API server is away: what it has is seen when it is back.
	}
	w.record.forgotten(k, versionOf(u), there)
}

// versionOf is the version in a work's manifest.
func versionOf(u *unstructured.Unstructured) int64 {
	manifests, _, _ := unstructured.NestedSlice(u.Object, "spec", "workload", "manifests")
	if len(manifests) == 0 {
		return 0
	}
	manifest, ok := manifests[0].(map[string]any)
	if !ok {
		return 0
	}
	text, _, _ := unstructured.NestedString(manifest, "data", "version")
	version, _ := strconv.ParseInt(text, 10, 64)
	return version
}

// join makes the namespace of a cluster.
func (h *hub) join(ctx context.Context, cluster string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: cluster}}
	if _, err := h.core.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the namespace of cluster %s: %w", cluster, err)
	}
	return nil
}

// manifest is what a work has in it: one ConfigMap of about size bytes.
func manifest(k key, version int64, size int) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": k.name, "namespace": "default", "labels": map[string]any{taintLabel: k.cluster}},
		"data":     map[string]any{"version": fmt.Sprint(version), "filler": filler(size)},
	}
}

// filler is a text that compresses to no less than three quarters of its size.
func filler(size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	rng := rand.NewChaCha8([32]byte{})
	text := make([]byte, size)
	for i := range text {
		text[i] = letters[rng.Uint64()%uint64(len(letters))]
	}
	return string(text)
}

func spec(k key, version int64, size int) map[string]any {
	return map[string]any{"workload": map[string]any{"manifests": []any{manifest(k, version, size)}}}
}

// write creates or updates a work and returns it as accepted.
func (h *hub) write(ctx context.Context, k key, version int64, size int) (*unstructured.Unstructured, error) {
	works := h.client.Resource(workResource).Namespace(k.cluster)
	content := map[string]any{"spec": spec(k, version, size)}
	patch, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	accepted, err := works.Patch(ctx, k.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		return accepted, err
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetAPIVersion("work.open-cluster-management.io/v1")
	u.SetKind("ManifestWork")
	u.SetName(k.name)
	return works.Create(ctx, u, metav1.CreateOptions{})
}

func (h *hub) remove(ctx context.Context, k key) error {
	err := h.client.Resource(workResource).Namespace(k.cluster).Delete(ctx, k.name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// guards says whether the work stays until its cluster has confirmed its
// deletion.
func (h *hub) guards(k key) error {
	object, ok, err := h.works.GetByKey(k.String())
	if err != nil {
		return err
	}
	if u, isWork := object.(*unstructured.Unstructured); !ok || !isWork || len(u.GetFinalizers()) == 0 {
		return fmt.Errorf("the hub has not taken %s yet", k)
	}
	return nil
}
