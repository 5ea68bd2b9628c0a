package apply

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// A target is what one watch covers: the metadata of a type in one namespace,
// or in none for types that are cluster scoped. It begins with the first
// applied object and ends with the last.
type target struct {
	gvr       schema.GroupVersionResource
	namespace string
	cancel    context.CancelFunc // Nil while no watch runs.
	pinned    bool               // It stays although it has no objects.

	// objects, synced and latest are guarded by the index. synced says that events are
	// coming in: what they do not mention did not change.
	objects map[objectID]struct{}
	synced  bool
	latest  uint64 // The highest version that the watch reported.

	complaint string // What went wrong last; guarded by the index.
}

type targetKey struct {
	gvr       schema.GroupVersionResource
	namespace string
}

// watches keeps one watch per target, no more than most of them. Objects beyond
// are looked at again every interval.
type watches struct {
	index    *index
	register *register
	client   metadata.Interface
	bell     *bell
	most     int
	recheck  time.Duration
	silent   time.Duration // After which a request that nobody answers is given up.
	log      *slog.Logger

	mu      sync.Mutex // Taken before index.mu.
	targets map[targetKey]*target
	running int
	ctx     context.Context // Of run; nil if it does not run.
	wg      sync.WaitGroup
}

// attach has the object watched.
func (w *watches) attach(id objectID, gvr schema.GroupVersionResource) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := targetKey{gvr, id.Namespace}
	t := w.targets[key]
	if t == nil {
		t = &target{gvr: gvr, namespace: id.Namespace, objects: make(map[objectID]struct{})}
		w.targets[key] = t
		w.start(t)
	}

	w.index.mu.Lock()
	defer w.index.mu.Unlock()
	r := w.index.records[id]
	if r == nil || r.target == t {
		return
	}
	if r.target != nil { // It was watched in another version.
		delete(r.target.objects, id)
	}
	r.target = t
	t.objects[id] = struct{}{}
}

// sweep ends the watches that have no object left.
func (w *watches) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, t := range w.targets {
		w.index.mu.Lock()
		empty := len(t.objects) == 0
		w.index.mu.Unlock()
		if empty && !t.pinned {
			w.stop(t)
			delete(w.targets, key)
		}
	}
	for _, t := range w.targets {
		w.start(t)
	}
}

// start begins to watch if there is room. The caller holds mu.
func (w *watches) start(t *target) {
	if w.ctx == nil || t.cancel != nil || (w.running >= w.most && !t.pinned) {
		return
	}
	ctx, cancel := context.WithCancel(w.ctx)
	t.cancel = cancel
	w.running++
	reflector := w.reflector(t)
	w.wg.Go(func() { w.follow(logr.NewContext(ctx, logr.Discard()), t, reflector) })
}

// stop ends a watch. The caller holds mu.
func (w *watches) stop(t *target) {
	if t.cancel == nil {
		return
	}
	t.cancel()
	t.cancel = nil
	w.running--
	w.unsync(t)
}

func (w *watches) unsync(t *target) {
	w.index.mu.Lock()
	defer w.index.mu.Unlock()
	t.synced = false
}

// active says whether run is under way.
func (w *watches) active() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ctx != nil && w.ctx.Err() == nil
}

// pin has the AppliedManifestWorks watched, whether or not there are any. The
// caller holds mu.
func (w *watches) pin() {
	key := targetKey{gvr: appliedWorkResource}
	if t := w.targets[key]; t != nil {
		w.index.mu.Lock()
		t.pinned, w.register.target = true, t
		w.index.mu.Unlock()
		return
	}
	w.targets[key] = w.register.target
}

// run watches until ctx ends.
func (w *watches) run(ctx context.Context) {
	w.mu.Lock()
	w.ctx = ctx
	w.pin()
	for _, t := range w.targets {
		w.start(t)
	}
	w.mu.Unlock()

	flush, recheck := time.NewTicker(w.bell.interval), time.NewTicker(w.recheck)
	defer flush.Stop()
	defer recheck.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-flush.C:
			w.bell.flush()
		case <-recheck.C:
			w.sweep()
			w.bell.ring(w.due()...)
		}
	}

	w.mu.Lock()
	w.ctx = nil
	for _, t := range w.targets {
		w.stop(t)
	}
	w.mu.Unlock()
	w.wg.Wait()

	// A watch may have come up while it was being stopped.
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.targets {
		w.unsync(t)
	}
}

// due returns the works that have objects for which no watch speaks, or that
// were refused. The next look is a new try: what the server refused, it is asked
// again. Who fights over which fields is not forgotten.
func (w *watches) due() []workKey {
	w.index.mu.Lock()
	defer w.index.mu.Unlock()
	found := make(map[workKey]struct{})
	for _, r := range w.index.records {
		for key, u := range r.users {
			if r.target == nil || !r.target.synced || u.outcome.err != nil {
				found[key] = struct{}{}
				u.read, u.memory.conflict = time.Time{}, noConflict
				r.users[key] = u
			}
		}
	}
	keys := make([]workKey, 0, len(found))
	for key := range found {
		keys = append(keys, key)
	}
	return keys
}

func (w *watches) reflector(t *target) *cache.Reflector {
	var api metadata.ResourceInterface = w.client.Resource(t.gvr)
	if t.namespace != "" {
		api = w.client.Resource(t.gvr).Namespace(t.namespace)
	}
	discard := logr.Discard()
	r := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			ctx, cancel := context.WithTimeout(ctx, w.silent)
			defer cancel()
			if t.gvr == appliedWorkResource && o.ResourceVersion == "0" {
				// The server may answer that from what it remembers. An agent that
				// just died may have left one since.
				o.ResourceVersion, o.ResourceVersionMatch = "", ""
			}
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return openWatch(ctx, w.silent, func(ctx context.Context) (watch.Interface, error) { return api.Watch(ctx, o) })
		},
	}, &metav1.PartialObjectMetadata{}, &events{watches: w, target: t}, cache.ReflectorOptions{
		Name:   "applied objects",
		Logger: &discard,
	})
	return r
}

// An openedWatch ends its context when it is stopped.
type openedWatch struct {
	watch.Interface
	cancel context.CancelFunc
}

// Stop implements watch.Interface.
func (o openedWatch) Stop() {
	o.Interface.Stop()
	o.cancel()
}

// openWatch gives up a watch that is not answered within the time. One that is
// lasts as long as ctx: whoever opened it stops it.
func openWatch(ctx context.Context, within time.Duration, open func(context.Context) (watch.Interface, error)) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	silent := time.AfterFunc(within, cancel)
	opened, err := open(ctx)
	silent.Stop()
	if err != nil {
		cancel()
		return nil, err
	}
	return openedWatch{opened, cancel}, nil
}

// follow keeps a watch up until ctx ends. A type may be forbidden or gone for
// good, so the pauses grow up to the interval of looking again without it.
func (w *watches) follow(ctx context.Context, t *target, r *cache.Reflector) {
	const first, factor = time.Second, 2
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		if err := r.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			w.broken(t, err)
		}
		if time.Since(began) > pause {
			pause = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Jitter(pause, 0.5)):
		}
		pause = min(pause*factor, w.recheck)
	}
}

// broken takes down that a watch does not work; it will be tried again.
func (w *watches) broken(t *target, err error) {
	reason := string(apierrors.ReasonForError(err))
	w.index.mu.Lock()
	first := t.complaint != reason || t.synced
	t.complaint, t.synced = reason, false
	var tell []workKey
	if first && apierrors.IsNotFound(err) { // The type is gone, and the objects with it.
		tell = usersOf(w.index, t)
	}
	w.index.mu.Unlock()
	if first {
		w.log.Warn("cannot watch applied objects for drift; checking them at intervals until it works",
			"resource", t.gvr.GroupResource().String(), "namespace", t.namespace,
			"interval", w.recheck, "error", clip(err.Error()))
	}
	w.bell.ring(tell...)
}

// usersOf returns the works with objects in t. The caller holds x.mu.
func usersOf(x *index, t *target) []workKey {
	var keys []workKey
	for id := range t.objects {
		for key := range x.records[id].users {
			keys = append(keys, key)
		}
	}
	return keys
}
