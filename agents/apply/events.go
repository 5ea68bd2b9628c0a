package apply

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// events takes what a watch reports. It is the store of a reflector that
// stores nothing: objects that are not ours leave no trace, and of ours only
// the resource version goes into the index.
type events struct {
	watches *watches
	target  *target
}

var _ cache.TransformingStore = (*events)(nil)

// Add implements cache.ReflectorStore.
func (e *events) Add(obj any) error { return e.see(obj, false) }

// Update implements cache.ReflectorStore.
func (e *events) Update(obj any) error { return e.see(obj, false) }

// Delete implements cache.ReflectorStore.
func (e *events) Delete(obj any) error { return e.see(obj, true) }

// Resync implements cache.ReflectorStore.
func (e *events) Resync() error { return nil }

// Transformer implements cache.TransformingStore: what a reflector gathers
// before it calls Replace is as small as it can be.
func (e *events) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		o, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		small := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		}}
		if e.target.pinned {
			small.Annotations = trimmed(o.GetAnnotations())
		}
		return small, nil
	}
}

func (e *events) id(o metav1.Object) objectID {
	return objectID{Group: e.target.gvr.Group, Resource: e.target.gvr.Resource, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (e *events) see(obj any, deleted bool) error {
	o, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	version, ok := parseVersion(o.GetResourceVersion())
	if !ok {
		return fmt.Errorf("resource version %.64q is not a number", o.GetResourceVersion())
	}
	x := e.watches.index
	x.mu.Lock()
	e.target.latest = max(e.target.latest, version)
	if e.watches.register.target == e.target {
		e.watches.register.see(o, deleted)
	}
	tell := x.see(e.id(o), version, deleted)
	x.mu.Unlock()
	e.watches.bell.ring(tell...)
	return nil
}

// Replace implements cache.ReflectorStore: it gets the state of all objects as
// of a resource version. Of objects that we know in a later one it says nothing,
// unless the version is below one that this watch has reported: then the
// cluster's store was replaced by an older one, and nothing is known any more.
func (e *events) Replace(list []any, resourceVersion string) error {
	asOf, ok := parseVersion(resourceVersion)
	if !ok {
		return fmt.Errorf("resource version %.64q is not a number", resourceVersion)
	}
	x := e.watches.index
	x.mu.Lock()
	missing := make(map[objectID]struct{}, len(e.target.objects))
	for id := range e.target.objects {
		missing[id] = struct{}{}
	}
	var tell []workKey
	if asOf < e.target.latest {
		x.rewind(e.target)
		tell = usersOf(x, e.target)
	}
	e.target.latest = asOf
	if e.watches.register.target == e.target {
		e.watches.register.replace(list)
	}
	for _, obj := range list {
		o, err := meta.Accessor(obj)
		if err != nil {
			continue
		}
		delete(missing, e.id(o))
		if version, ok := parseVersion(o.GetResourceVersion()); ok {
			tell = append(tell, x.see(e.id(o), version, false)...)
		}
	}
	for id := range missing {
		tell = append(tell, x.see(id, asOf, true)...)
	}
	e.target.synced, e.target.complaint = true, ""
	x.mu.Unlock()
	e.watches.bell.ring(tell...)
	return nil
}

// see takes down that the object was in this version, or deleted at it, and
// returns the works to tell. The caller holds mu.
func (x *index) see(id objectID, version uint64, deleted bool) []workKey {
	r := x.records[id]
	if r == nil || version <= r.version || version < r.seen || (version == r.seen && r.gone == deleted) {
		return nil
	}
	r.seen, r.gone = version, deleted
	if r.busy > 0 || r.version == 0 {
		return nil // The call that is changing it will look.
	}
	keys := make([]workKey, 0, len(r.users))
	for key := range r.users {
		keys = append(keys, key)
	}
	return keys
}

// A bell tells the engine that works need a look. An object may change all the
// time, so a work is told once per interval, and once more afterwards if there
// was something in between.
type bell struct {
	interval time.Duration
	changed  func(source, id string)

	mu   sync.Mutex
	rung map[workKey]time.Time
	late map[workKey]struct{}
	// reminders are works to be told at a time, whether or not anything happens.
	reminders map[workKey]time.Time
}

func newBell(interval time.Duration, changed func(source, id string)) *bell {
	if changed == nil {
		changed = func(string, string) {}
	}
	return &bell{
		interval: interval, changed: changed,
		rung: make(map[workKey]time.Time), late: make(map[workKey]struct{}),
		reminders: make(map[workKey]time.Time),
	}
}

func (b *bell) ring(keys ...workKey) {
	if len(keys) == 0 {
		return
	}
	b.tell(b.admit(keys, time.Now()))
}

func (b *bell) admit(keys []workKey, now time.Time) []workKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []workKey
	for _, key := range keys {
		if at, ok := b.rung[key]; ok && now.Sub(at) < b.interval {
			b.late[key] = struct{}{}
			continue
		}
		b.rung[key] = now
		out = append(out, key)
	}
	return out
}

// remind has a work told after a while.
func (b *bell) remind(key workKey, while time.Duration) {
	at := time.Now().Add(while)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reminders[key] = at
}

// flush tells of what had to wait. It is called once per interval.
func (b *bell) flush() { b.tell(b.due(time.Now())) }

func (b *bell) due(now time.Time) []workKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, at := range b.rung {
		if now.Sub(at) >= b.interval {
			delete(b.rung, key)
		}
	}
	for key, at := range b.reminders {
		if !now.Before(at) {
			delete(b.reminders, key)
			b.late[key] = struct{}{}
		}
	}
	var out []workKey
	for key := range b.late {
		if _, early := b.rung[key]; early {
			continue
		}
		delete(b.late, key)
		b.rung[key] = now
		out = append(out, key)
	}
	return out
}

func (b *bell) tell(keys []workKey) {
	for _, key := range keys {
		b.changed(key.source, key.id)
	}
}
