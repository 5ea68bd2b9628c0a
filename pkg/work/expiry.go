package work

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// AddExpiry has the replica that leads delete finished works when their time to
// live is over, see api.Expiry. Each work waits for its own time; none is looked at
// again before that unless it changes. What waits is found again after a restart.
//
// A work is deleted as the cache has it: if it has changed meanwhile, the deletion
// fails, and the change decides.
func AddExpiry(mgr manager.Manager, log *slog.Logger) error {
	e := &expiry{reader: mgr.GetCache(), writer: mgr.GetClient(), log: log}
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
	log    *slog.Logger
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
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !mayExpire(w) {
		return reconcile.Result{}, nil
	}
	at, _ := api.Expiry(w)
	if left := time.Until(at); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
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
