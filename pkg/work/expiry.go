package work

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// expiryWorkers is how many works are deleted at a time. More would only have the
// API server slow down the others' requests.
const expiryWorkers = 4

// agreementInterval is how long a work that is due waits until its cluster is
// looked at again, which has not shown yet that it holds the work.
const agreementInterval = 10 * time.Second

// An Agreement says whether the cluster of a work, since this replica leads, was
// found to hold the work as the API has it. What the API says of works of before may
// be from a backup, and what it calls finished may run.
type Agreement func(cluster, id string) bool

// AddExpiry has the replica that leads delete finished works when their time to
// live is over, see api.Expiry. Each work waits for its own time; none is looked at
// again before that unless it changes. What waits is found again after a restart.
//
// Nothing is deleted before there is an agreement on it. By the clock of a cluster a
// work may have been finished before it was made; its time then counts from when
// this process saw it finished.
//
// A work is deleted as the cache has it: if it has changed meanwhile, the deletion
// fails, and the change decides.
func AddExpiry(mgr manager.Manager, agreed Agreement, log *slog.Logger) error {
	e := &expiry{reader: mgr.GetCache(), writer: mgr.GetClient(), agreed: agreed, log: log, seen: map[client.ObjectKey]sighting{}}
	// Several hubs may run in one process, each with a controller of this name.
	sharesName := true
	err := builder.ControllerManagedBy(mgr).Named("manifestwork-expiry").
		For(&workv1.ManifestWork{}, builder.WithPredicates(predicate.NewPredicateFuncs(mayExpire))).
		WithOptions(controller.Options{MaxConcurrentReconciles: expiryWorkers, SkipNameValidation: &sharesName}).
		Complete(e)
	if err != nil {
		return fmt.Errorf("watch ManifestWorks for their time to live: %w", err)
	}
	return nil
}

type expiry struct {
	reader client.Reader
	writer client.Writer
	agreed Agreement
	log    *slog.Logger

	mu   sync.Mutex
	seen map[client.ObjectKey]sighting // Of the works that wait and whose cluster's clock is wrong.
}

// A sighting is when a work was seen finished.
type sighting struct {
	uid        types.UID
	generation int64
	at         time.Time
}

// mayExpire keeps the works that name no time to live, which are nearly all, out of
// the queue.
func mayExpire(o client.Object) bool {
	w, ok := o.(*workv1.ManifestWork)
	if !ok || w.DeletionTimestamp != nil {
		return false
	}
	_, ok = api.Expiry(w)
	return ok
}

// Reconcile deletes the work, or waits until its time is over.
func (e *expiry) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	// Not copied, for works are large: it must not be changed.
	w := &workv1.ManifestWork{}
	if err := e.reader.Get(ctx, request.NamespacedName, w, client.UnsafeDisableDeepCopy); err != nil {
		e.forget(request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !mayExpire(w) {
		e.forget(request.NamespacedName)
		return reconcile.Result{}, nil
	}
	if left := time.Until(e.due(w)); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if !e.agreed(w.Namespace, string(w.UID)) {
		return reconcile.Result{RequeueAfter: agreementInterval}, nil
	}
	err := e.writer.Delete(ctx, &workv1.ManifestWork{ObjectMeta: w.ObjectMeta},
		client.Preconditions{UID: &w.UID, ResourceVersion: &w.ResourceVersion})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return reconcile.Result{}, nil // The cache is about to say what it is now.
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("delete finished work %s/%s: %w", w.Namespace, w.Name, err)
	}
	e.log.Info("finished work deleted as its time to live is over", "cluster", w.Namespace, "work", w.Name, "id", w.UID,
		"ttl_seconds", *w.Spec.DeleteOption.TTLSecondsAfterFinished)
	return reconcile.Result{}, nil
}

// due is when the time to live of a finished work is over.
func (e *expiry) due(w *workv1.ManifestWork) time.Time {
	at, _ := api.Expiry(w)
	if !api.FinishedBeforeItWasMade(w) {
		return at
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := client.ObjectKeyFromObject(w)
	first, ok := e.seen[key]
	if !ok || first.uid != w.UID || first.generation != w.Generation {
		first = sighting{uid: w.UID, generation: w.Generation, at: time.Now()}
		e.seen[key] = first
	}
	return first.at.Add(time.Duration(*w.Spec.DeleteOption.TTLSecondsAfterFinished) * time.Second)
}

func (e *expiry) forget(key client.ObjectKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.seen, key)
}
