package executor

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/cache"
)

// A question is whether somebody may do something. An empty name in it stands
// for all objects of the resource and namespace.
type question struct {
	who  Subject
	what Object
	verb string
}

// answers remembers what the API server answered.
//
// Invariant: an answer that is remembered was asked for after the last change of
// rights that is known.
type answers struct {
	options Options

	mu      sync.Mutex
	known   *cache.LRUExpireCache
	era     uint64 // Grows with each change of rights.
	changed map[scope]time.Time
	watched bool
}

// A scope is what a change of rights bears on: nobody stands for everybody, no
// namespace for all of the cluster, and no resource for all of them.
type scope struct {
	who       Subject
	namespace string
	resource  schema.GroupResource
}

// has says whether the question is one of the scope.
func (s scope) has(q question) bool {
	return (s.who.IsZero() || s.who == q.who) && (s.namespace == "" || s.namespace == q.what.Namespace) &&
		(s.resource.Empty() || s.resource == q.what.GroupResource)
}

func newAnswers(o Options) *answers {
	return &answers{options: o, known: cache.NewLRUExpireCache(o.Answers), changed: make(map[scope]time.Time)}
}

func (a *answers) get(q question) (allowed, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	value, known := a.known.Get(q)
	allowed, _ = value.(bool)
	return allowed, known
}

// now is what put wants to know of the time at which a question was asked.
func (a *answers) now() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.era
}

func (a *answers) put(q question, allowed bool, asked uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.era != asked {
		return
	}
	ttl := a.options.ShortTTL
	if allowed && a.watched && a.settled(q) {
		ttl = a.options.TTL
	}
	a.known.Add(q, allowed, ttl)
}

// settled says whether nothing that bears on the question changed of late. The
// caller holds mu.
func (a *answers) settled(q question) bool {
	resource := q.what.GroupResource
	for _, s := range [...]scope{{}, {namespace: q.what.Namespace}, {q.who, "", resource}, {q.who, q.what.Namespace, resource}} {
		if at, ok := a.changed[s]; ok && time.Since(at) < a.options.Settle {
			return false
		}
	}
	return true
}

// forget drops the answers to the questions of a scope.
func (a *answers) forget(s scope) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era++
	maps.DeleteFunc(a.changed, func(_ scope, at time.Time) bool { return time.Since(at) >= a.options.Settle })
	a.changed[s] = time.Now()
	a.known.RemoveAll(func(key any) bool {
		q, ok := key.(question)
		return ok && s.has(q)
	})
}

// watch says whether changes of rights become known. When that begins, nothing
// is known of what was before; when it ends, what is remembered goes, for it was
// meant to be corrected.
func (a *answers) watch(on bool) {
	a.mu.Lock()
	was := a.watched
	a.watched = on
	a.mu.Unlock()
	if was != on {
		a.forget(scope{})
	}
}
