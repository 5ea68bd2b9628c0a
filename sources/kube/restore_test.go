package kube_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
	copied := server.BackUp(t)
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
	copied.Restore(t)
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

// TestRestoreIsNoticed: no watch tells of it. The next hub finds what is there, and
// deletes nothing.
func TestRestoreIsNoticed(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	cluster, broker := server.Namespace(t), mem.NewBroker(mem.Options{})
	h := startHubAt(t, server.Config(), cluster, broker, kube.Options{})
	f := join(t, cluster, broker)
	has := func(name string) string {
		id := string(h.mustGet(name).UID)
		h.eventually("the cluster has "+name, func() error {
			if !f.has(id) || h.held()[id].Reported == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		return id
	}
	h.create("old")
	old := has("old")
	h.source.Guarding(100 * time.Millisecond)
	guarded := make(chan error, 1)
	go func() { guarded <- h.source.Guard(t.Context()) }()

	copied := server.BackUp(t) // An API server that is away for a while is no other one.
	h.eventually("create new", func() error {
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: "new"}}
		w.Spec.Workload.Manifests = manifests("a")
		return client.IgnoreAlreadyExists(h.Create(t.Context(), w))
	})
	fresh := has("new")
	for i := range 200 { // What an hour or a night writes.
		h.change("old", func(w *workv1.ManifestWork) { w.Annotations = map[string]string{"n": fmt.Sprint(i)} })
	}
	select {
	case err := <-guarded:
		t.Fatalf("before the restore: %v", err)
	default:
	}
	copied.Restore(t)
	select {
	case err := <-guarded:
		if !errors.Is(err, kube.ErrRewound) {
			t.Errorf("after the restore: %v, want ErrRewound", err)
		}
	case <-time.After(patience):
		t.Fatalf("nobody noticed within %s", patience)
	}

	h.stop()
	h = startHubAt(t, server.Config(), cluster, broker, kube.Options{})
	h.awaitAgent("what the backup lacks is unclaimed", func(a *v1alpha1.Agent) bool { return len(a.Status.Unclaimed) == 1 && inSync(a) })
	for _, id := range []string{old, fresh} {
		if !f.has(id) {
			t.Errorf("work %s is gone from the cluster", id)
		}
	}
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
	copied := server.BackUp(t)
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
	copied.Restore(t)
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
