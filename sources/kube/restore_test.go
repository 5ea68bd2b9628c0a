package kube_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// A backup is a copy of what an API server keeps.
type backup struct {
	server *apitest.Server
	copy   string
}

// backUp stops the server and starts it again.
func backUp(t *testing.T, server *apitest.Server) backup {
	t.Helper()
	b := backup{server, filepath.Join(t.TempDir(), "backup")}
	server.Stop(t)
	if err := os.CopyFS(b.copy, os.DirFS(filepath.Dir(server.Kubeconfig()))); err != nil {
		t.Fatal(err)
	}
	server.Restart(t)
	return b
}

// restore has the server start with what it had then.
func (b backup) restore(t *testing.T) {
	t.Helper()
	dir := filepath.Dir(b.server.Kubeconfig())
	b.server.Stop(t)
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(b.copy))); err != nil {
		t.Fatal(err)
	}
	b.server.Restart(t)
}

// expireWatches has the API server refuse to go on with the next watch of works,
// once armed, as it does after a restore. It returns how to arm it and how to
// learn that it did.
func expireWatches(cfg *rest.Config) (arm func(), expired func() bool) {
	var armed, done atomic.Bool
	const gone = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"The resourceVersion for the provided watch is too old.","code":410}`
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			q := r.URL.Query()
			if q.Get("watch") == "true" && q.Get("resourceVersion") != "" && strings.Contains(r.URL.Path, "manifestworks") && armed.CompareAndSwap(true, false) {
				done.Store(true)
				return &http.Response{
					StatusCode: http.StatusGone, Status: "410 Gone", Header: http.Header{"Content-Type": {"application/json"}},
					Body: io.NopCloser(strings.NewReader(gone)), Request: r,
				}, nil
			}
			return next.RoundTrip(r)
		})
	})
	return func() { armed.Store(true) }, done.Load
}

// TestRestoreUnderARunningHub: works that are not in the backup were deleted by
// nobody. They are unclaimed.
func TestRestoreUnderARunningHub(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	cluster, broker := server.Namespace(t), mem.NewBroker(mem.Options{})
	cfg := server.Config()
	arm, expired := expireWatches(cfg)
	h := startHubAt(t, cfg, cluster, broker, kube.Options{})
	f := join(t, cluster, broker)
	old := h.create("old")
	h.awaitAgent("in sync", func(a *v1alpha1.Agent) bool { return inSync(a) && f.has(string(old.UID)) })
	copied := backUp(t, server)
	var ids []string
	for i := range 3 {
		name := fmt.Sprintf("new%d", i)
		h.eventually("create "+name, func() error {
			w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
			w.Spec.Workload.Manifests = manifests("a")
			return client.IgnoreAlreadyExists(h.Create(t.Context(), w))
		})
		id := string(h.mustGet(name).UID)
		ids = append(ids, id)
		h.eventually("the cluster has "+name, func() error {
			if !f.has(id) || h.held()[id].Reported == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	a := h.agent()
	arm()
	copied.restore(t)
	h.eventually("the hub knows what is left", func() error {
		for _, id := range ids {
			if h.source.Remembers(id) {
				return errors.New("it still knows " + id)
			}
		}
		if !expired() {
			return errors.New("the watch goes on")
		}
		return nil
	})
	agent := h.awaitAgent("they are unclaimed", func(a *v1alpha1.Agent) bool { return len(a.Status.Unclaimed) == len(ids) && inSync(a) })
	for _, id := range ids {
		if _, ok := h.held()[id]; ok || !f.has(id) {
			t.Errorf("work %s is held: %t; its cluster has it: %t", id, ok, f.has(id))
		}
	}
	if len(agent.Status.Tombstones) > 0 {
		t.Errorf("tombstones %v", agent.Status.Tombstones)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.bundles {
		if b.Deleting() {
			t.Errorf("the hub sent the deletion of %s, which nobody deleted", b.ID)
		}
	}
	// What is there goes on as before.
	w := h.change("old", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("b") })
	h.eventually("a change arrives", func() error {
		if got := h.held()[string(w.UID)]; got.Reported != w.Generation {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

// TestWorkDeletedAfterTheBackup: the restored hub has it again, and its cluster
// remembers the deletion. Nothing brings it back but its owner.
func TestWorkDeletedAfterTheBackup(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	cluster, broker := server.Namespace(t), mem.NewBroker(mem.Options{})
	h := startHubAt(t, server.Config(), cluster, broker, kube.Options{})
	f := join(t, cluster, broker)
	names, ids := []string{"edited", "deleted"}, map[string]string{}
	for _, name := range names {
		ids[name] = string(h.create(name).UID)
	}
	for _, name := range names {
		h.eventually("the cluster has "+name, func() error {
			if !f.has(ids[name]) || h.held()[ids[name]].Reported == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	h.stop()
	copied := backUp(t, server)
	h = startHubAt(t, server.Config(), cluster, broker, kube.Options{})
	for _, name := range names {
		h.eventually("delete "+name, func() error {
			w, err := h.get(name)
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err == nil && w.DeletionTimestamp == nil {
				err = h.Delete(t.Context(), w)
			}
			return errors.Join(errors.New("still there"), err)
		})
	}
	h.stop()
	copied.restore(t)
	h = startHubAt(t, server.Config(), cluster, broker, kube.Options{})
	const deleted = "Applied=True AppliedManifestWorkComplete, Dispatched=False ClusterDeleted"
	for _, name := range names {
		h.eventually(name+" says that it is ignored", func() error {
			if got := summary(h.mustGet(name)); got != deleted {
				return errors.New(got)
			}
			return nil
		})
	}
	h.awaitAgent("that is in sync", inSync)
	for _, name := range names {
		if f.has(ids[name]) {
			t.Errorf("%s is on the cluster again", name)
		}
	}
	for _, data := range []string{"b", "c"} {
		h.change("edited", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests(data) })
	}
	h.eventually("the edited work is back", func() error {
		if got := summary(h.mustGet("edited")); got != "Applied=True AppliedManifestWorkComplete" || !f.has(ids["edited"]) {
			return errors.New(got)
		}
		return nil
	})
	if err := h.Delete(t.Context(), h.mustGet("deleted")); err != nil {
		t.Fatal(err)
	}
	h.eventually("the deleted work is gone", func() error {
		if _, err := h.get("deleted"); !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("still there"), err)
		}
		return nil
	})
	h.awaitAgent("all is in sync", inSync)
}
