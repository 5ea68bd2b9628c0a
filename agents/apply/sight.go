package apply

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/agents/executor"
	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// A sight is what an object said of itself in one version, to rules of one sum and
// to who had the right to read it.
type sight struct {
	rules   string
	as      executor.Subject
	version uint64
	result  *observe.Result
}

// sight returns what the object said to the same rules and reader, if a live watch
// vouches that nothing happened to it since, and time alone does not change it.
func (x *index) sight(p *pass, m *manifest) (*observe.Result, bool) {
	id, rules := m.id(), sumRules(m.rules)
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.records[id]
	if r == nil || r.gone || r.target == nil || !r.target.synced {
		return nil, false
	}
	s := r.users[p.key].sight
	if s.result == nil || s.result.Transient || s.rules != rules || s.as != p.executor || s.version < max(r.seen, r.version) {
		return nil, false
	}
	return s.result, true
}

// keepSight takes down what the object said to the work, if it is a user.
func (x *index) keepSight(id objectID, key workKey, s sight) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil {
		if u, ok := r.users[key]; ok {
			u.sight = s
			r.users[key] = u
		}
	}
}

// needsWhole says whether the metadata of the object do not answer all that is
// asked of it.
func (m *manifest) needsWhole() bool { return !m.rules.Empty() || !observe.ByMetadata(m.gvk()) }

// regard has a live object say what it is asked, and keeps that. live is nil if
// it is not known, and whole may be if live is all of it.
func (a *Applier) regard(ctx context.Context, p *pass, m *manifest, live metav1.Object, whole *unstructured.Unstructured) {
	if live == nil {
		return
	}
	if whole == nil {
		whole = entire(m, live)
	}
	if whole == nil {
		return
	}
	result := a.observer.Observe(ctx, whole, m.rules)
	m.seen = &result
	if version, ok := parseVersion(live.GetResourceVersion()); ok {
		a.index.keepSight(m.id(), p.key, sight{rules: sumRules(m.rules), as: p.executor, version: version, result: &result})
	}
}

// entire returns live with all that is asked of it, nil if live does not have it.
func entire(m *manifest, live metav1.Object) *unstructured.Unstructured {
	switch o := live.(type) {
	case *unstructured.Unstructured:
		return o
	case *metav1.PartialObjectMetadata:
		if o == nil || m.needsWhole() {
			return nil
		}
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetGroupVersionKind(m.gvk())
		u.SetDeletionTimestamp(o.DeletionTimestamp)
		return u
	}
	return nil
}
