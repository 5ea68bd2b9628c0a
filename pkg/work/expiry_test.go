package work_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/work"
)

// run has works expire until the end of the test, or until it is called, whose
// clusters all agree.
func (h *hub) run(o manager.Options) (stop func()) {
	h.t.Helper()
	return h.runAgreed(o, func(string, string) bool { return true })
}

func (h *hub) runAgreed(o manager.Options, agreed work.Agreement) (stop func()) {
	h.t.Helper()
	o.Scheme, o.Logger, o.Metrics = h.Scheme(), logr.Discard(), metricsserver.Options{BindAddress: "0"}
	mgr, err := manager.New(h.config, o)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := work.AddExpiry(mgr, agreed, slog.New(slog.DiscardHandler)); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx); close(done) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("manager: %v", err)
		}
	}
	h.t.Cleanup(stop)
	return stop
}

// finished makes a work that was finished then and lives for so many seconds.
func (h *hub) finished(namespace, name string, at time.Time, ttl int64, change func(*workv1.ManifestWork)) *workv1.ManifestWork {
	h.t.Helper()
	w := workOf(namespace, name, configMap("a", ""))
	w.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground, TTLSecondsAfterFinished: &ttl}
	complete := []metav1.Condition{{
		Type: workv1.WorkComplete, Status: metav1.ConditionTrue, Reason: "ConditionRulesAggregated", ObservedGeneration: 1, LastTransitionTime: metav1.NewTime(at),
	}}
	w.Status.Conditions = complete
	if change != nil {
		change(w)
	}
	conditions := w.Status.Conditions
	h.make(w)
	w.Status.Conditions = conditions
	if err := h.Status().Update(h.t.Context(), w); err != nil {
		h.t.Fatal(err)
	}
	return w
}

func (h *hub) awaitGone(w *workv1.ManifestWork) {
	h.t.Helper()
	h.eventually("work "+w.Name+" is deleted", func() error {
		err := h.Get(h.t.Context(), client.ObjectKeyFromObject(w), &workv1.ManifestWork{})
		if err == nil {
			return errors.New("it is there")
		}
		return client.IgnoreNotFound(err)
	})
}

func (h *hub) mustBeThere(reason string, w *workv1.ManifestWork) {
	h.t.Helper()
	got := &workv1.ManifestWork{}
	if err := h.Get(h.t.Context(), client.ObjectKeyFromObject(w), got); err != nil || got.DeletionTimestamp != nil {
		h.t.Errorf("%s: work %s is deleted: %v", reason, w.Name, err)
	}
}

// TestConformanceTTL has the row "TTL after completion", as far as the hub deletes.
func TestConformanceTTL(t *testing.T) {
	t.Run("TTL_after_completion", func(t *testing.T) {
		h := newHub(t)
		namespace := apitest.Shared(t).Namespace(t)
		past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		stay := map[string]*workv1.ManifestWork{
			"its time is not over":      h.finished(namespace, "later", past, 7200, nil),
			"it finishes in the future": h.finished(namespace, "future", future, 0, nil),
			"nil is never":              h.finished(namespace, "never", past, 0, func(w *workv1.ManifestWork) { w.Spec.DeleteOption = nil }),
			"negative is refused":       h.finished(namespace, "negative", past, -1, nil),
			"it is not finished":        h.finished(namespace, "running", past, 0, func(w *workv1.ManifestWork) { w.Status.Conditions[0].Status = metav1.ConditionFalse }),
			"another generation is":     h.finished(namespace, "changed", past, 0, func(w *workv1.ManifestWork) { w.Status.Conditions[0].ObservedGeneration = 7 }),
			"its cluster is ahead": h.finished(namespace, "ahead", past, 0, func(w *workv1.ManifestWork) {
				w.Status.Conditions = append(w.Status.Conditions, metav1.Condition{
					Type: api.ConditionDispatched, Status: metav1.ConditionFalse, Reason: api.ReasonClusterAhead,
					ObservedGeneration: 1, LastTransitionTime: metav1.Now(), Message: "The cluster holds generation 5 of this work",
				})
			}),
			"a wrong clock says nothing of the time": h.finished(namespace, "clock", time.Unix(5, 0), 3600, nil),
			"who made it will remove it":             h.finished(namespace, "of-a-set", past, 0, func(w *workv1.ManifestWork) { w.Labels = map[string]string{api.ReplicaSetLabel: "sets.s"} }),
		}
		go1 := []*workv1.ManifestWork{
			h.finished(namespace, "at-once", past, 0, nil),
			h.finished(namespace, "over", past, 1, nil),
			h.finished(namespace, "soon", time.Now(), 2, nil),
		}
		stop := h.run(manager.Options{})
		for _, w := range go1 {
			h.awaitGone(w)
		}
		// One that is finished while the hub runs, and a change that has one expire.
		h.awaitGone(h.finished(namespace, "new", past, 0, nil))
		w := stay["its time is not over"]
		delete(stay, "its time is not over")
		h.eventually("shorten its time", func() error {
			if err := h.Get(t.Context(), client.ObjectKeyFromObject(w), w); err != nil {
				return err
			}
			w.Spec.DeleteOption.TTLSecondsAfterFinished = new(int64(0))
			return h.Update(t.Context(), w)
		})
		// The change is a generation of which nobody said that it is finished.
		h.awaitGone(h.finished(namespace, "after-the-change", past, 0, nil))
		h.mustBeThere("its cluster did not say so", w)
		w.Status.Conditions[0].ObservedGeneration = w.Generation
		if err := h.Status().Update(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		h.awaitGone(w)
		stop()

		// What was finished, or whose time was over, while no hub ran.
		between := h.finished(namespace, "between", past, 0, nil)
		h.run(manager.Options{})
		h.awaitGone(between)
		for reason, w := range stay {
			h.mustBeThere(reason, w)
		}
	})
}

// TestExpiryWaitsForItsCluster: what the API calls finished may be from a backup,
// and run. It is deleted once the cluster was found to hold just that.
func TestExpiryWaitsForItsCluster(t *testing.T) {
	h := newHub(t)
	namespace := apitest.Shared(t).Namespace(t)
	past := time.Now().Add(-time.Hour)
	w := h.finished(namespace, "restored", past, 0, nil)
	other := h.finished(namespace, "other", past, 0, nil)
	var agreed atomic.Bool
	asked := make(chan struct{}, 100)
	h.runAgreed(manager.Options{}, func(cluster, id string) bool {
		if cluster != namespace || id != string(w.UID) {
			return true
		}
		asked <- struct{}{}
		return agreed.Load()
	})
	h.awaitGone(other)
	<-asked
	<-asked // It is asked again without a change of the work.
	h.mustBeThere("its cluster was not found to hold it", w)
	agreed.Store(true)
	h.awaitGone(w)
}

// TestExpiryIsTheLeaders: a replica that waits deletes nothing.
func TestExpiryIsTheLeaders(t *testing.T) {
	h := newHub(t)
	namespace := apitest.Shared(t).Namespace(t)
	o := manager.Options{LeaderElection: true, LeaderElectionID: "expiry", LeaderElectionNamespace: namespace, LeaderElectionReleaseOnCancel: true}
	holder := h.holdLease(namespace, "expiry")
	w := h.finished(namespace, "job", time.Now().Add(-time.Hour), 0, nil)
	h.run(o)
	// The other's own deletions show that there was time enough.
	other := h.finished(apitest.Shared(t).Namespace(t), "job", time.Now().Add(-time.Hour), 0, nil)
	stop := h.runOnly(other.Namespace)
	h.awaitGone(other)
	stop()
	h.mustBeThere("the replica does not lead", w)
	if err := h.Delete(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	h.awaitGone(w)
}

// holdLease makes a lease that somebody else holds for an hour.
func (h *hub) holdLease(namespace, name string) client.Object {
	h.t.Helper()
	now := metav1.NewMicroTime(time.Now())
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("somebody-else"), LeaseDurationSeconds: new(int32(3600)), AcquireTime: &now, RenewTime: &now,
		},
	}
	h.make(lease)
	return lease
}

// runOnly is run for the works of one namespace.
func (h *hub) runOnly(namespace string) (stop func()) {
	h.t.Helper()
	return h.run(manager.Options{Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}}})
}
