package apply

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A register knows which AppliedManifestWorks the cluster has, from the watch on
// them, so that nobody has to ask for those of a work. It holds their names and
// whose they are, some hundred bytes each. It lags behind the cluster as every
// watch does: what is in it is read before it is used, and where it has nothing,
// the creation of what is there already fails.
//
// All is guarded by the index.
type register struct {
	// target is the watch; what the register has is complete while it is synced.
	target *target
	works  map[string]registered // By name.
	names  map[workKey][]string
}

// A registered is an AppliedManifestWork of the register.
type registered struct {
	key workKey
	uid types.UID
}

func newRegister() *register {
	r := &register{target: &target{gvr: appliedWorkResource, objects: make(map[objectID]struct{}), pinned: true}}
	r.clear()
	return r
}

func (r *register) clear() {
	r.works, r.names = make(map[string]registered), make(map[workKey][]string)
}

// see takes down what the watch says of one.
func (r *register) see(o metav1.Object, deleted bool) {
	name := o.GetName()
	was, known := r.works[name]
	annotations := o.GetAnnotations()
	now := registered{workKey{annotations[sourceAnnotation], annotations[idAnnotation]}, o.GetUID()}
	if known && (deleted || was.key != now.key) {
		left := slices.DeleteFunc(r.names[was.key], func(n string) bool { return n == name })
		if r.names[was.key] = left; len(left) == 0 {
			delete(r.names, was.key)
		}
		delete(r.works, name)
	}
	if deleted {
		return
	}
	if !known || was.key != now.key {
		r.names[now.key] = append(r.names[now.key], name)
	}
	r.works[name] = now
}

// replace takes down the state of all.
func (r *register) replace(list []any) {
	r.clear()
	for _, obj := range list {
		if o, ok := obj.(metav1.Object); ok {
			r.see(o, false)
		}
	}
}

// trimmed is what a register needs of the annotations of an AppliedManifestWork.
func trimmed(annotations map[string]string) map[string]string {
	out := maps.Clone(annotations)
	maps.DeleteFunc(out, func(k, _ string) bool { return k != sourceAnnotation && k != idAnnotation })
	return out
}

// appliedWorkNames are the names of the AppliedManifestWorks that the cluster has
// of the work, if that is known without asking.
func (w *watches) appliedWorkNames(key workKey) (names []string, known bool) {
	w.index.mu.Lock()
	defer w.index.mu.Unlock()
	if !w.register.target.synced {
		return nil, false
	}
	return slices.Clone(w.register.names[key]), true
}
