package executor

import (
	"sync"
	"time"

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
	changed time.Time
	watched bool
}

func newAnswers(o Options) *answers {
	return &answers{options: o, known: cache.NewLRUExpireCache(o.Answers)}
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
	if allowed && a.watched && time.Since(a.changed) >= a.options.Settle {
		ttl = a.options.TTL
	}
	a.known.Add(q, allowed, ttl)
}

// forget drops the answers to some questions.
func (a *answers) forget(which func(question) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era++
	a.changed = time.Now()
	a.known.RemoveAll(func(key any) bool {
		q, ok := key.(question)
		return ok && which(q)
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
		a.forget(func(question) bool { return true })
	}
}
