package executor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

const rbacGroup = "rbac.authorization.k8s.io"

// sources are the resources that rights come from.
var sources = [...]schema.GroupVersionResource{
	{Group: rbacGroup, Version: "v1", Resource: "roles"},
	{Group: rbacGroup, Version: "v1", Resource: "rolebindings"},
	{Group: rbacGroup, Version: "v1", Resource: "clusterroles"},
	{Group: rbacGroup, Version: "v1", Resource: "clusterrolebindings"},
}

// A watch makes answers be forgotten when rights change. It sees metadata only,
// which is enough: a role or a binding in a namespace bears on that namespace,
// and one of the cluster on everything.
type watch struct {
	answers *answers
	client  metadata.Interface
	timeout time.Duration // Of requests that end.
	log     *slog.Logger
	changed func()

	mu     sync.Mutex
	synced [len(sources)]bool
	told   bool
}

// run watches until ctx ends.
func (w *watch) run(ctx context.Context) {
	ctx = logr.NewContext(ctx, logr.Discard())
	var wg sync.WaitGroup
	for i := range sources {
		wg.Go(func() { w.follow(ctx, i) })
	}
	wg.Wait()
}

// follow keeps one watch up. The agent may never be allowed to, so the pauses
// grow.
func (w *watch) follow(ctx context.Context, i int) {
	const first, longest = time.Second, 10 * time.Minute
	reflector := w.reflector(i)
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			w.broken(i, err)
		}
		w.sync(i, false)
		if time.Since(began) > pause {
			pause = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Jitter(pause, 0.5)):
		}
		pause = min(2*pause, longest)
	}
}

func (w *watch) reflector(i int) *cache.Reflector {
	api := w.client.Resource(sources[i])
	discard := logr.Discard()
	return cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			ctx, cancel := context.WithTimeout(ctx, w.timeout)
			defer cancel()
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			return w.open(ctx, func(ctx context.Context) (apiwatch.Interface, error) { return api.Watch(ctx, o) })
		},
	}, &metav1.PartialObjectMetadata{}, &events{w, i}, cache.ReflectorOptions{Name: "rights", Logger: &discard})
}

// An openedWatch ends its context when it is stopped.
type openedWatch struct {
	apiwatch.Interface
	cancel context.CancelFunc
}

// Stop implements watch.Interface.
func (o openedWatch) Stop() {
	o.Interface.Stop()
	o.cancel()
}

// open gives up a watch that is not answered in time. One that is lasts as long
// as ctx.
func (w *watch) open(ctx context.Context, begin func(context.Context) (apiwatch.Interface, error)) (apiwatch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	silent := time.AfterFunc(w.timeout, cancel)
	opened, err := begin(ctx)
	silent.Stop()
	if err != nil {
		cancel()
		return nil, err
	}
	return openedWatch{opened, cancel}, nil
}

// broken tells once that answers are not kept up to date.
func (w *watch) broken(i int, err error) {
	w.mu.Lock()
	first := !w.told
	w.told = true
	w.mu.Unlock()
	level := slog.LevelInfo
	if !apierrors.IsForbidden(err) {
		level = slog.LevelWarn
	}
	if first {
		w.log.Log(context.Background(), level, "cannot watch roles and bindings; asking for the rights of executors more often until it works",
			"resource", sources[i].Resource, "interval", w.answers.options.ShortTTL, "err", err)
	}
}

// sync takes down whether one of the sources speaks. Only all of them together
// tell of every change.
func (w *watch) sync(i int, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced[i] = on
	all := true
	for _, synced := range w.synced {
		all = all && synced
	}
	w.told = w.told && !all
	w.answers.watch(all) // In the order of the changes.
}

// forget drops the answers that a change in the namespace bears on, of all
// namespaces if it is empty.
func (w *watch) forget(namespace string) {
	w.answers.forget(scope{namespace: namespace})
	w.changed()
}

// events takes what one watch reports. It is the store of a reflector that
// stores nothing.
type events struct {
	watch *watch
	index int
}

var _ cache.TransformingStore = (*events)(nil)

// Add implements cache.ReflectorStore.
func (e *events) Add(obj any) error { return e.see(obj) }

// Update implements cache.ReflectorStore.
func (e *events) Update(obj any) error { return e.see(obj) }

// Delete implements cache.ReflectorStore.
func (e *events) Delete(obj any) error { return e.see(obj) }

// Resync implements cache.ReflectorStore.
func (e *events) Resync() error { return nil }

// Replace implements cache.ReflectorStore. What happened before it is not known.
func (e *events) Replace([]any, string) error {
	e.watch.forget("")
	e.watch.sync(e.index, true)
	return nil
}

// Transformer implements cache.TransformingStore: what a reflector gathers
// before it calls Replace is as small as it can be.
func (e *events) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		o, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		}}, nil
	}
}

func (e *events) see(obj any) error {
	o, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	e.watch.forget(o.GetNamespace())
	return nil
}
