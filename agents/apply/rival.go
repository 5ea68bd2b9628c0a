package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
)

// Several works may have one object. What is in it says the first of them, by
// the order of their owner references, whose strategy writes content; works
// that orphan it come last, the oldest first. The others become owners beside it,
// so that it outlives whichever goes first, and are applied as far as the object
// is what they want anyway. A work of another source changes nothing at all in
// it but to become an owner of what is exactly what it wants.
//
// So there is one who writes, whatever the order in which works are applied, and
// nobody has to remember who it is: the object itself says so.

// A rival is a work that has an object before the one that is being applied.
type rival struct {
	key  workKey
	name string // Of its AppliedManifestWork.
	// want is what it asks of the object; the zero value if this process does not
	// know.
	want want
	// foreign says that it is of another source.
	foreign bool
}

// splits says whether the two leave it to the server who has which field.
func (r *rival) splits(o option) bool {
	return !r.foreign && r.want.strategy == workv1.UpdateStrategyTypeServerSideApply && r.want.fieldManager != o.fieldManager
}

// A precedence says that the object is not as the work wants it, because another
// work has it first.
type precedence struct{ first string }

// Error implements error.
func (c *precedence) Error() string {
	return c.first + " has the object first and wants it otherwise; it stays so until one of the two works changes or goes"
}

func isContest(o outcome) bool {
	_, ok := o.err.(*precedence) //nolint:errorlint // It is never wrapped.
	return ok
}

// describe names a work for the status of another one. Of a work of another
// source it says no more than the object's owner references do.
func (a *Applier) describe(key workKey, name string, own workKey) string {
	work := strings.TrimPrefix(name, a.options.HubHash+"-")
	if key.source != "" && key.source != own.source {
		return "a work of another source (AppliedManifestWork " + clip(name) + ")"
	}
	return "work " + clip(work)
}

// rival returns the work that has a say in the object before the one of h; nil
// if there is none.
func (a *Applier) rival(ctx context.Context, key workKey, h *holding, m *manifest, live metav1.Object) (*rival, error) {
	id := m.id()
	for _, ref := range live.GetOwnerReferences() {
		switch {
		case !isAppliedWork(ref):
			continue
		case ref.UID == h.uid:
			return nil, nil
		}
		r, err := a.owner(ctx, key, id, ref)
		if err != nil || r != nil {
			return r, err
		}
	}
	if m.option.owned {
		return nil, nil
	}
	return a.elder(key, h, id), nil
}

// owner returns the rival that an owner reference stands for; nil if there is no
// such AppliedManifestWork any more, it does not list the object, for anybody may
// write a reference, or does not mind what is in it, or nobody holds its work.
func (a *Applier) owner(ctx context.Context, key workKey, id objectID, ref metav1.OwnerReference) (*rival, error) {
	of, asks, known := a.index.owner(id, ref.UID)
	if !known {
		w, err := a.getAppliedWork(ctx, ref.Name)
		if err != nil {
			return nil, fmt.Errorf("look up owner %s: %w", ref.Name, err)
		}
		if w == nil || w.UID != ref.UID {
			return nil, nil // The garbage collector takes the reference away.
		}
		if !lists(w, id) || a.abandoned(w) {
			return nil, nil
		}
		of = keyOf(w, workKey{})
	}
	if of == key || known && !asks.writes() {
		return nil, nil
	}
	return &rival{key: of, name: ref.Name, want: asks, foreign: of.source != key.source}, nil
}

// abandoned says whether nobody has held the work of an AppliedManifestWork of
// this agent since it was first in the way of another work, for as long as that
// one waits before it looks again. Before that the work may be on its way: an
// agent without a disk gets its works in any order.
func (a *Applier) abandoned(w *workv1.AppliedManifestWork) bool {
	if _, ok := a.ledger.(unknowing); ok || w.Spec.AgentID != a.options.AgentID || a.elsewhere(w) {
		return false
	}
	key := keyOf(w, workKey{})
	has, _ := a.ledger.Fate(key.source, key.id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if has {
		delete(a.missed, w.UID)
		return false
	}
	since, ok := a.missed[w.UID]
	if !ok {
		a.missed[w.UID] = time.Now()
		return false
	}
	return time.Since(since) >= a.options.Recheck
}

// elder returns the rival among works that orphan an object that no work owns:
// one whose AppliedManifestWork is older.
func (a *Applier) elder(key workKey, h *holding, id objectID) *rival {
	var first *holding
	var r *rival
	for of, asks := range a.index.orphaning(id) {
		other := a.held(of)
		if of == key || other == nil || !other.before(h) || first != nil && !other.before(first) {
			continue
		}
		first, r = other, &rival{key: of, name: other.name, want: asks, foreign: of.source != key.source}
	}
	return r
}

// before says whether an AppliedManifestWork is older than another.
func (h *holding) before(other *holding) bool {
	return cmp.Or(h.made.Compare(other.made.Time), cmp.Compare(h.name, other.name)) < 0
}

// writes says whether the work minds what is in the object.
func (w want) writes() bool {
	return w.strategy == workv1.UpdateStrategyTypeUpdate || w.strategy == workv1.UpdateStrategyTypeServerSideApply
}

// yield leaves the content of an object to the work that has it first. conflict
// says that others changed it meanwhile.
func (a *Applier) yield(ctx context.Context, c *client, t task, live *unstructured.Unstructured, first *rival, rule kindRule) (did applied, conflict bool) {
	next := toShare(live, t.manifest, first.foreign, rule)
	contested := next == nil
	if contested {
		did.outcome = withPresence(refused(&precedence{a.describe(first.key, first.name, t.key)}), present)
		if did.live = live; first.foreign {
			return did, false
		}
		next = live.DeepCopy()
	}
	next.SetOwnerReferences(withOwner(live.GetOwnerReferences(), t.owner, t.option.owned))
	if digestLive(next) == digestLive(live) {
		if !contested {
			did = applied{outcome: done(unchanged), live: live}
		}
		return did, false
	}
	after, err := c.update(ctx, t.manifest, next)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return applied{}, true
	case err != nil:
		return applied{outcome: withPresence(failure(t.gvk(), err), present)}, false
	case !contested:
		did.outcome = done(configured)
	}
	did.live = after
	return did, false
}

// toShare returns live with the labels and annotations of the manifest that it
// lacks, or nil if it is not what the manifest says. Of a foreign object nothing
// may lack.
func toShare(live *unstructured.Unstructured, m *manifest, foreign bool, rule kindRule) *unstructured.Unstructured {
	desired := m.object.DeepCopy()
	dropNullTimestamps(desired.Object)
	if rule.keep != nil {
		rule.keep(desired.Object, live.Object)
	}
	if !rule.metadataOnly && !leniently(m.meta.Group)(live.Object, desired.Object, rule) {
		return nil
	}
	next := live.DeepCopy()
	labels, ok := joined(live.GetLabels(), desired.GetLabels(), foreign)
	if !ok {
		return nil
	}
	annotations, ok := joined(live.GetAnnotations(), desired.GetAnnotations(), foreign)
	if !ok {
		return nil
	}
	next.SetLabels(labels)
	next.SetAnnotations(annotations)
	return next
}

// joined returns have with what it lacks of want, and whether nothing of it has
// to change for that.
func joined(have, want map[string]string, foreign bool) (map[string]string, bool) {
	for key, value := range want {
		if name, remove := strings.CutSuffix(key, "-"); remove {
			if _, ok := have[name]; ok {
				return nil, false
			}
		} else if is, ok := have[key]; ok && is != value || !ok && foreign {
			return nil, false
		}
	}
	return mergeMap(have, want), true
}

// waiting describes the works that wait for the work of key to leave an object
// to them.
func (a *Applier) waiting(id objectID, key workKey) []string {
	var names []string
	for _, k := range a.index.contesting(id) {
		if h := a.held(k); k != key && h != nil {
			names = append(names, a.describe(k, h.name, key))
		}
	}
	return names
}

// leave makes the work no user of the object any more. Others may have waited
// for that, or tell that it waited.
func (a *Applier) leave(id objectID, key workKey) {
	contested := len(a.index.contesting(id)) > 0
	a.index.release(id, key)
	if contested {
		a.bell.ring(a.index.others(id, key)...)
	}
}

// owner returns the work that has the object and the AppliedManifestWork uid,
// and what it asks.
func (x *index) owner(id objectID, uid types.UID) (workKey, want, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.records[id]; r != nil {
		for k, u := range r.users {
			if u.want.owner == uid {
				return k, u.want, true
			}
		}
	}
	return workKey{}, want{}, false
}

// orphaning returns the works that write the object and do not own it.
func (x *index) orphaning(id objectID) map[workKey]want {
	x.mu.Lock()
	defer x.mu.Unlock()
	found := make(map[workKey]want)
	if r := x.records[id]; r != nil {
		for k, u := range r.users {
			if !u.want.owned && u.want.writes() {
				found[k] = u.want
			}
		}
	}
	return found
}

// contesting returns the works that want the object otherwise than it is, in a
// stable order.
func (x *index) contesting(id objectID) []workKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []workKey
	if r := x.records[id]; r != nil {
		for k, u := range r.users {
			if isContest(u.outcome) {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, func(a, b workKey) int { return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.id, b.id)) })
	return keys
}

// contests says whether the work last wanted the object otherwise than it is.
func (x *index) contests(id objectID, key workKey) bool {
	return slices.Contains(x.contesting(id), key)
}

// others returns the works beside key that have the object, which look at it
// again when they are told.
func (x *index) others(id objectID, key workKey) []workKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []workKey
	if r := x.records[id]; r != nil {
		for k, u := range r.users {
			if k != key {
				u.stale = true
				r.users[k] = u
				keys = append(keys, k)
			}
		}
	}
	return keys
}
