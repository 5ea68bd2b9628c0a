package apply

import (
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
)

// A workKey names a work: its source, and the ID that the source gave it.
type workKey struct{ source, id string }

// want is what one work asks of one object; equal wants ask for the same.
type want struct {
	sum          string
	strategy     workv1.UpdateStrategyType
	fieldManager string
	ignored      string // Sum of the ignored fields.
	force, owned bool
	owner        types.UID
}

// A record is what is known of one applied object without asking the server.
//
// The object is as its users left it exactly if seen <= version and not gone:
// version is that of the last state that was held against the manifests, seen
// the highest that a watch reported. Resource versions of one type grow over
// all its objects, so a new object of an old name needs no special care.
type record struct {
	uid     types.UID
	version uint64
	seen    uint64
	gone    bool
	// busy counts calls that are changing the object. Events about it wait for
	// them, since most are the calls' own.
	busy   int
	users  map[workKey]user
	target *target
}

// A user is a work that has an object among its own.
type user struct {
	want want
	// outcome is that of the last look, with a refusal that only a change of the
	// object can cure, if any.
	outcome outcome
	memory  memory
	// sight is what the object said of itself when it was last read whole.
	sight sight
	// read is when that was.
	read time.Time
	// stale says that another work changed the object, or what it asks of it,
	// since.
	stale bool
}

func (r *record) dirty() bool   { return r.gone || r.seen > r.version }
func (r *record) settled() bool { return r.version > 0 && r.busy == 0 && !r.dirty() }

// An index knows the applied objects by name. It holds a few hundred bytes per
// object and none of its content.
type index struct {
	verify time.Duration // Immutable.

	mu      sync.Mutex
	records map[objectID]*record
}

func newIndex(verify time.Duration) *index {
	return &index{verify: verify, records: make(map[objectID]*record)}
}

// outcome returns what became of the object when the work last asked for
// exactly w, if a live watch vouches that nothing happened to it since, and it
// is not too long ago.
func (x *index) outcome(id objectID, key workKey, w want) (outcome, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.records[id]
	if r == nil || !r.settled() || r.target == nil || !r.target.synced {
		return outcome{}, false
	}
	u, ok := r.users[key]
	if !ok || u.stale || u.want != w || time.Since(u.read) >= x.verify || u.memory.due(time.Now()) {
		return outcome{}, false
	}
	o := u.outcome
	if o.err == nil && o.action != observed {
		o.action = unchanged
	}
	return o, true
}

// memory returns what the work remembers of its writes for w.
func (x *index) memory(id objectID, key workKey, w want) memory {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil && r.users[key].want == w {
		return r.users[key].memory
	}
	return memory{}
}

// remember takes down what the work learned of those who write the same object.
// The result of its last write is taken down by end.
func (x *index) remember(id objectID, key workKey, w want, learned memory) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.records[id]
	if r == nil {
		return
	}
	if u, ok := r.users[key]; ok && u.want == w {
		learned.result = u.memory.result
		u.memory = learned
		r.users[key] = u
	}
}

// version returns that of the last state that was looked at, 0 if none was.
func (x *index) version(id objectID) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil {
		return r.version
	}
	return 0
}

// begin marks the object as being changed by us. Every begin needs its end.
func (x *index) begin(id objectID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.records[id]
	if r == nil {
		r = &record{users: make(map[workKey]user)}
		x.records[id] = r
	}
	r.busy++
}

// end takes down what a change came to. live is the object as it is now, nil
// if that is not known. It returns the works to tell that the object changed
// meanwhile, or by this one: only the first of them writes what is in it, so they
// do not tell each other for ever.
func (x *index) end(id objectID, key workKey, w want, o outcome, live metav1.Object, result digest) []workKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.records[id]
	r.busy--
	moved := false
	if live != nil {
		version, ok := parseVersion(live.GetResourceVersion())
		moved = ok && r.version != 0 && version > r.version
		if ok && version >= r.version {
			r.version = version
		}
		if r.version >= r.seen {
			r.gone = false
		}
		r.uid = live.GetUID()
		var past memory
		if was := r.users[key]; was.want == w {
			past = was.memory
		}
		if result != (digest{}) {
			past.result = result
		}
		r.users[key] = user{want: w, outcome: o, memory: past, read: time.Now()}
	}
	if len(r.users) == 0 {
		x.drop(id, r)
		return nil
	}
	if r.busy > 0 {
		return nil
	}
	var tell []workKey
	for k, u := range r.users {
		beside := moved && k != key
		if beside {
			u.stale = true
			r.users[k] = u
		}
		if beside || (r.dirty() && (k != key || live != nil)) {
			tell = append(tell, k)
		}
	}
	return tell
}

// release makes the work no user of the object any more.
func (x *index) release(id objectID, key workKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil {
		delete(r.users, key)
		x.drop(id, r)
	}
}

// drop forgets a record that nobody uses. The caller holds mu.
func (x *index) drop(id objectID, r *record) {
	if len(r.users) > 0 || r.busy > 0 {
		return
	}
	delete(x.records, id)
	if r.target != nil {
		delete(r.target.objects, id)
	}
}

// uid returns the UID of the object, if it is known.
func (x *index) uid(id objectID) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil {
		return string(r.uid)
	}
	return ""
}

// parseVersion reads a resource version, which Kubernetes promises to be a
// decimal number that grows.
func parseVersion(s string) (uint64, bool) {
	v, err := strconv.ParseUint(s, 10, 64)
	return v, err == nil
}

// wanted returns what the work last asked of the object.
func (x *index) wanted(id objectID, key workKey) want {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil {
		return r.users[key].want
	}
	return want{}
}
