package apply

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// arrivals tells works that wait for a kind when a CRD of its group appears. The
// CRDs are watched only while there is such a work.
type arrivals struct {
	client  metadata.Interface
	bell    *bell
	forget  func(group string) // Makes the next question about a group go to the server.
	silent  time.Duration      // After which a request that nobody answers is given up.
	recheck time.Duration      // The longest pause after a failure.
	settle  time.Duration      // How long after a change a CRD may begin to be served.
	log     *slog.Logger

	mu      sync.Mutex
	waiting map[string]map[workKey]struct{} // By group.
	changed map[string]time.Time            // When a CRD of a group changed that works wait for.
	ctx     context.Context                 // Of run; nil if it does not run.
	stop    context.CancelFunc              // Nil while no watch runs.
	wg      sync.WaitGroup
}

// await has the work wait for these groups and for no others.
func (a *arrivals) await(key workKey, groups map[string]struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for group, works := range a.waiting {
		delete(works, key)
		if _, still := groups[group]; len(works) == 0 && !still {
			delete(a.waiting, group)
			delete(a.changed, group)
		}
	}
	for group := range groups {
		if a.waiting[group] == nil {
			a.waiting[group] = make(map[workKey]struct{})
		}
		a.waiting[group][key] = struct{}{}
	}
	a.adjust()
}

// adjust begins or ends the watch. The caller holds mu.
func (a *arrivals) adjust() {
	switch {
	case a.ctx == nil:
	case len(a.waiting) > 0 && a.stop == nil:
		ctx, cancel := context.WithCancel(a.ctx)
		a.stop = cancel
		a.wg.Go(func() { a.follow(logr.NewContext(ctx, logr.Discard())) })
	case len(a.waiting) == 0 && a.stop != nil:
		a.stop()
		a.stop = nil
	}
}

// run watches until ctx ends.
func (a *arrivals) run(ctx context.Context) {
	a.mu.Lock()
	a.ctx = ctx
	a.adjust()
	a.mu.Unlock()
	tick := time.NewTicker(a.bell.interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-tick.C:
			a.again(now)
		}
	}
	a.mu.Lock()
	a.ctx, a.stop = nil, nil
	a.mu.Unlock()
	a.wg.Wait()
}

// again tells the works that wait for groups whose CRDs changed a moment ago: the
// server begins to serve a kind some time after its CRD is there.
func (a *arrivals) again(now time.Time) {
	a.mu.Lock()
	var groups []string
	for group, at := range a.changed {
		if now.Sub(at) > a.settle {
			delete(a.changed, group)
			continue
		}
		groups = append(groups, group)
	}
	a.mu.Unlock()
	for _, group := range groups {
		a.tell(group)
	}
}

func (a *arrivals) tell(group string) {
	a.mu.Lock()
	keys := make([]workKey, 0, len(a.waiting[group]))
	for key := range a.waiting[group] {
		keys = append(keys, key)
	}
	a.mu.Unlock()
	if len(keys) > 0 {
		a.forget(group)
		a.bell.ring(keys...)
	}
}

// follow keeps the watch up until ctx ends.
func (a *arrivals) follow(ctx context.Context) {
	const first, factor = time.Second, 2
	api := a.client.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	discard := logr.Discard()
	reflector := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			ctx, cancel := context.WithTimeout(ctx, a.silent)
			defer cancel()
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return openWatch(ctx, a.silent, func(ctx context.Context) (watch.Interface, error) { return api.Watch(ctx, o) })
		},
	}, &metav1.PartialObjectMetadata{}, (*definitions)(a), cache.ReflectorOptions{Name: "definitions", Logger: &discard})
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("cannot watch CRDs; missing kinds are asked for at intervals until it works", "error", clip(err.Error()))
		}
		if time.Since(began) > pause {
			pause = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Jitter(pause, 0.5)):
		}
		pause = min(pause*factor, a.recheck)
	}
}

// definitions takes what the watch on CRDs reports. It stores nothing.
type definitions arrivals

var _ cache.ReflectorStore = (*definitions)(nil)

// Add implements cache.ReflectorStore.
func (d *definitions) Add(obj any) error { return d.see(obj) }

// Update implements cache.ReflectorStore.
func (d *definitions) Update(obj any) error { return d.see(obj) }

// Delete implements cache.ReflectorStore.
func (d *definitions) Delete(any) error { return nil }

// Resync implements cache.ReflectorStore.
func (d *definitions) Resync() error { return nil }

// Replace implements cache.ReflectorStore: a CRD may have come between the
// question for its kind and the watch.
func (d *definitions) Replace(list []any, _ string) error {
	for _, obj := range list {
		if err := d.see(obj); err != nil {
			return err
		}
	}
	return nil
}

func (d *definitions) see(obj any) error {
	o, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	// A CRD is named by its resource and its group.
	_, group, _ := strings.Cut(o.GetName(), ".")
	a := (*arrivals)(d)
	a.mu.Lock()
	_, awaited := a.waiting[group]
	if awaited {
		a.changed[group] = time.Now()
	}
	a.mu.Unlock()
	if awaited {
		a.tell(group)
	}
	return nil
}
