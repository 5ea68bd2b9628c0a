package ocm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

// A fleetHub is this project's hub, and its user.
type fleetHub struct {
	*testing.T
	client.Client
	world *world
	stop  func()
}

// startHub runs the hub until the test ends.
func startHub(w *world) *fleetHub {
	w.t.Helper()
	direct, err := client.New(w.server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		w.t.Fatal(err)
	}
	h := &fleetHub{T: w.t, Client: direct, world: w}
	h.start()
	until(w.t, "the hub's API is served", func() error {
		return direct.List(w.t.Context(), &workv1.ManifestWorkList{}, client.InNamespace(w.cluster))
	})
	return h
}

func (h *fleetHub) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- hub.Run(ctx, hub.Config{
			RESTConfig: h.world.server.Config(), Broker: flags.Broker{URL: h.world.url()},
			SourceID: h.world.source, InstallCRDs: true,
		})
	}()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("hub: %v", err)
		}
	}
	h.Cleanup(h.stop)
}

// create makes a work of one ConfigMap and returns its ID. Annotations are given
// as names and values.
func (h *fleetHub) create(name, mode string, annotations ...string) string {
	h.Helper()
	work := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: h.world.cluster, Name: name}}
	for pair := range slices.Chunk(annotations, 2) {
		metav1.SetMetaDataAnnotation(&work.ObjectMeta, pair[0], pair[1])
	}
	work.Spec.Workload.Manifests = configMap(h.T, mode)
	if err := h.Create(h.Context(), work); err != nil {
		h.Fatal(err)
	}
	return string(work.UID)
}

func configMap(t *testing.T, mode string) []workv1.Manifest {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]string{"name": "settings", "namespace": "web"},
		"data":     map[string]string{"mode": mode},
	})
	if err != nil {
		t.Fatal(err)
	}
	return []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: raw}}}
}

// get returns nil for a work that does not exist.
func (h *fleetHub) get(name string) *workv1.ManifestWork {
	h.Helper()
	work := &workv1.ManifestWork{}
	err := h.Get(h.Context(), client.ObjectKey{Namespace: h.world.cluster, Name: name}, work)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		h.Fatal(err)
	}
	return work
}

func (h *fleetHub) update(name, mode string) {
	h.Helper()
	until(h.T, "update work "+name, func() error {
		work := h.get(name)
		work.Spec.Workload.Manifests = configMap(h.T, mode)
		return h.Update(h.Context(), work)
	})
}

func (h *fleetHub) delete(name string) {
	h.Helper()
	if err := h.Delete(h.Context(), h.get(name)); err != nil {
		h.Fatal(err)
	}
}

// awaitStatus waits until the hub's status of the work is the agent's, of this
// generation.
func (h *fleetHub) awaitStatus(a *ocmAgent, name string, generation int64) {
	h.Helper()
	until(h.T, fmt.Sprintf("the hub has the status of work %s at generation %d", name, generation), func() error {
		_, held, ok := a.work(name)
		if !ok || held.generation != generation {
			return fmt.Errorf("the agent has generation %d", held.generation)
		}
		return h.status(name, held.status)
	})
}

// status is an error unless the work's status on the hub is so, but for the
// condition that is the hub's own.
func (h *fleetHub) status(name string, want workv1.ManifestWorkStatus) error {
	h.Helper()
	wantHash, err := statusHash(want)
	if err != nil {
		return err
	}
	got := h.get(name)
	if got == nil {
		return fmt.Errorf("the hub has no work %s", name)
	}
	got.Status.Conditions = slices.DeleteFunc(got.Status.Conditions, func(c metav1.Condition) bool { return c.Type == "Dispatched" })
	hash, err := statusHash(got.Status)
	if err == nil && hash != wantHash {
		err = fmt.Errorf("the hub has status %+v, want %+v", got.Status, want)
	}
	return err
}

func (h *fleetHub) awaitGone(name string) {
	h.Helper()
	until(h.T, "work "+name+" is gone", func() error {
		if work := h.get(name); work != nil {
			return fmt.Errorf("it has finalizers %v", work.Finalizers)
		}
		return nil
	})
}
