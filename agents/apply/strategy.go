package apply

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A strategy makes the live object follow its manifest.
type strategy func(ctx context.Context, c *client, t task) applied

// A task is one manifest for a strategy.
type task struct {
	*manifest
	key   workKey
	owner metav1.OwnerReference
	// fresh says that the object is most likely not there yet.
	fresh bool
	known memory
	// mayReplace says why the object may not be deleted and made anew, if so.
	mayReplace func(ctx context.Context) error
	// rival returns the work that has the object that is live before this one,
	// nil if there is none; yield leaves it to that one, compared by rule.
	rival func(ctx context.Context, live metav1.Object) (*rival, error)
	yield func(ctx context.Context, c *client, t task, live *unstructured.Unstructured, first *rival, rule kindRule) (did applied, conflict bool)
}

// applied is what a strategy did.
type applied struct {
	outcome outcome
	// live is the object as it is now; nil if it is absent or unknown.
	live metav1.Object
	// whole is live with its content, if live is only its metadata and the content
	// was read.
	whole *unstructured.Unstructured
	// result is what live is taken for from now on, if it was written or judged
	// for the first time.
	result digest
	// learned is what is known of others that write the object; nil for as before.
	learned *memory
}

// conflictTries is how often a read and a write are tried when others write the
// same object in between.
const conflictTries = 4

// applyManifest applies one manifest, unless a watch vouches that it is.
func (a *Applier) applyManifest(ctx context.Context, p *pass, h *holding, m *manifest, established map[schema.GroupKind]bool) (o outcome) {
	asked := want{
		sum: m.sum, strategy: m.option.strategy, fieldManager: m.option.fieldManager,
		force: m.option.force, ignored: m.option.ignored.Sum(), owned: m.option.owned, owner: h.uid,
	}
	id := m.id()
	defer func() { o.waiting = a.waiting(id, p.key) }()
	if o, ok := a.index.outcome(id, p.key, asked); ok {
		if m.seen, ok = a.index.sight(p, m); ok {
			return o
		}
	}
	if o, ok := a.rights.escalation(ctx, p, m); !ok {
		return o
	}
	past := a.index.memory(id, p.key, asked)
	ended := past.due(time.Now())
	t := task{
		manifest: m, key: p.key, owner: ownerRef(h.name, h.uid), fresh: p.fresh, known: past.reopen(time.Now()),
		rival: func(ctx context.Context, live metav1.Object) (*rival, error) { return a.rival(ctx, p.key, h, m, live) },
		yield: a.yield, mayReplace: func(ctx context.Context) error { return a.rights.mayReplace(ctx, p, m) },
	}
	was, asking := a.index.contests(id, p.key), a.index.wanted(id, p.key)
	before := a.index.version(id)
	a.index.begin(id)
	did := strategies[m.option.strategy](ctx, p.client, t)
	if did.outcome.err != nil && typeMissing(did.outcome.err) {
		a.mapper.forget(m.gvk().GroupVersion())
		if kind := m.gvk().GroupKind(); established[kind] {
			// The server has accepted the CRD and begins to serve it about now.
			did = a.untilServed(ctx, p.client, t, did)
		}
	}
	did.outcome = a.rights.judge(p, m, did.outcome)
	tell := a.index.end(id, p.key, asked, did.outcome, did.live, did.result)
	if did.learned == nil && ended {
		did.learned = &t.known
	}
	if did.learned != nil {
		a.index.remember(id, p.key, asked, *did.learned)
	}
	if did.live != nil {
		a.watches.attach(id, m.resource.GroupVersionResource)
		a.watches.compare(before, did.live)
	}
	// One that does not mind the content is known not to only now: the others took
	// its reference for that of one that does.
	if contests := isContest(did.outcome); contests != was || asking != asked && asking.sum != "" || asking.sum == "" && !asked.writes() {
		tell = append(tell, a.index.others(id, p.key)...)
	}
	a.bell.ring(tell...)
	if action := did.outcome.action; action == created || action == configured {
		a.log.Debug("object written", "source", p.key.source, "work", p.key.id, "object", id.String(), "action", string(action))
	}
	a.regard(ctx, p, m, did.live, did.whole)
	if isCRD(m.gvk()) && (did.outcome.action == created || did.outcome.action == configured) {
		a.awaitCRD(ctx, p.client, m, established)
	}
	return did.outcome
}

// liveObject avoids an interface that holds a nil pointer.
func liveObject(u *unstructured.Unstructured) metav1.Object {
	if u == nil {
		return nil
	}
	return u
}
