package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// Which work an AppliedManifestWork stands for. Its name does not tell: a work
// may be deleted and made again under the same name, and two sources may use
// the same one.
const (
	sourceAnnotation = "work.fleetcast.io/source"
	idAnnotation     = "work.fleetcast.io/id"
	// clusterAnnotation is the name of the cluster, on the hub, that the work is
	// for. Two agents of one hub may run on one API server under two names.
	clusterAnnotation = "work.fleetcast.io/cluster"
	// keyLabel is the digest of both, to find the AppliedManifestWork of a work
	// whose deletion does not say its name.
	keyLabel = "work.fleetcast.io/key"
	// inventoryAnnotation lists the objects of a new AppliedManifestWork, whose
	// creation cannot say more in its status. It counts until the status lists
	// any; see readInventory.
	inventoryAnnotation = "work.fleetcast.io/inventory"
)

var appliedWorkResource = schema.GroupVersionResource{
	Group: workv1.GroupName, Version: workv1.GroupVersion.Version, Resource: "appliedmanifestworks",
}

// errTaken says that the AppliedManifestWork of this name belongs to a work of
// another source.
var errTaken = errors.New("the name is taken")

// A holding is what the cluster has of one work: its AppliedManifestWork and
// the inventory in it. It is used by one call at a time, as the work is.
type holding struct {
	name    string
	uid     types.UID
	entries []entry
	// unlisted says that the status does not list the entries yet: the annotation
	// does. reminded says that the next pass puts that right.
	unlisted, reminded bool
	made               metav1.Time // When the AppliedManifestWork was.
	complete           completions
}

func newHolding(w *workv1.AppliedManifestWork) *holding {
	entries, unlisted := readInventory(w)
	return &holding{name: w.Name, uid: w.UID, entries: entries, unlisted: unlisted, made: w.CreationTimestamp, complete: readCompletions(w)}
}

func appliedWorkID(name string) objectID {
	return objectID{Group: appliedWorkResource.Group, Resource: appliedWorkResource.Resource, Name: name}
}

func (k workKey) label() string {
	sum := sha256.Sum256([]byte(k.source + "\x00" + k.id))
	return hex.EncodeToString(sum[:16])
}

// nameOf is the name of a work's AppliedManifestWork.
func (a *Applier) nameOf(work string) string { return a.options.HubHash + "-" + work }

// appliedWork is the AppliedManifestWork that a work should have.
func (a *Applier) appliedWork(p *pass) *workv1.AppliedManifestWork {
	labels := maps.Clone(p.work.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[keyLabel] = p.key.label()
	annotations := map[string]string{sourceAnnotation: p.key.source, idAnnotation: p.key.id}
	if a.options.Cluster != "" {
		annotations[clusterAnnotation] = a.options.Cluster
	}
	if !p.executor.IsZero() {
		annotations[executorAnnotation] = p.executor.String()
	}
	return &workv1.AppliedManifestWork{
		ObjectMeta: metav1.ObjectMeta{
			Name:        a.nameOf(p.work.Name),
			Labels:      labels,
			Annotations: annotations,
			Finalizers:  []string{api.AppliedWorkFinalizer},
		},
		Spec: workv1.AppliedManifestWorkSpec{
			HubHash: a.options.HubHash, AgentID: a.options.AgentID, ManifestWorkName: p.work.Name,
		},
	}
}

// claim makes sure that the work has its AppliedManifestWork, and says what it
// holds. One that the work has under another name stays in use: the hub's hash
// changes when the broker's address does, and a second one would share the
// objects with the first for ever.
func (a *Applier) claim(ctx context.Context, p *pass) (*holding, error) {
	if a.beingEvicted(p.key) {
		return nil, errEvicting
	}
	desired := a.appliedWork(p)
	asked := want{sum: digestAppliedWork(desired)}
	if h := a.held(p.key); h != nil {
		if _, ok := a.index.outcome(appliedWorkID(h.name), p.key, asked); ok {
			return h, nil
		}
	}
	have, err := a.appliedWorks(ctx, p.key)
	if err != nil {
		return nil, err
	}
	for len(have) > 0 && have[0].DeletionTimestamp != nil && have[0].Name != desired.Name {
		// Somebody deleted it under its old name; the next one gets its own.
		blockers, err := a.dismantle(ctx, p.key, &have[0], spares(&p.work.Spec))
		if err = errors.Join(stillThere(blockers), err); err != nil {
			return nil, fmt.Errorf("AppliedManifestWork %s: %w", have[0].Name, err)
		}
		have = have[1:]
	}
	if len(have) > 0 {
		desired.Name = have[0].Name
	}
	id := appliedWorkID(desired.Name)
	before := a.index.version(id)
	a.index.begin(id)
	var known *workv1.AppliedManifestWork
	if len(have) > 0 {
		known = &have[0]
	}
	live, err := a.ensureAppliedWork(ctx, p, desired, known)
	if err != nil {
		a.bell.ring(a.index.end(id, p.key, asked, outcome{}, nil, digest{})...)
		return nil, fmt.Errorf("AppliedManifestWork %s: %w", desired.Name, err)
	}
	tell := a.index.end(id, p.key, asked, done(unchanged), live, digest{})
	a.watches.attach(id, appliedWorkResource)
	a.watches.compare(before, live)
	if h := a.held(p.key); h != nil && h.name != live.Name {
		a.index.release(appliedWorkID(h.name), p.key)
	}
	h := newHolding(live)
	a.hold(p.key, h)
	a.bell.ring(tell...)
	for i := range have {
		if have[i].Name == live.Name {
			continue
		}
		if err := a.merge(ctx, p.client, p.key, h, &have[i]); err != nil {
			return nil, fmt.Errorf("merge AppliedManifestWork %s into %s: %w", have[i].Name, live.Name, err)
		}
	}
	return h, nil
}

func digestAppliedWork(w *workv1.AppliedManifestWork) string {
	raw, err := json.Marshal(w)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// ensureAppliedWork makes the AppliedManifestWork as desired. live is what the
// work has, if it is known to have one.
func (a *Applier) ensureAppliedWork(ctx context.Context, p *pass, desired, live *workv1.AppliedManifestWork) (*workv1.AppliedManifestWork, error) {
	if live == nil {
		// Most likely it is new. Creating it tells whether it is.
		made, err := a.createAppliedWork(ctx, p, desired)
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		if live, err = a.getAppliedWork(ctx, desired.Name); err != nil {
			return nil, err
		}
	}
	if live != nil && a.elsewhere(live) {
		return nil, fmt.Errorf("%w by a work of cluster %s; if no agent has that cluster name any more, set annotation %s to %s to take it over",
			errTaken, clip(live.Annotations[clusterAnnotation]), clusterAnnotation, a.options.Cluster)
	}
	if live != nil && live.DeletionTimestamp != nil {
		// Somebody deleted it to have its objects removed, or a work of the same
		// name is on its way out. That comes first.
		was := keyOf(live, p.key)
		keep := spares(&p.work.Spec)
		if was != p.key {
			keep = spares(&workv1.ManifestWorkSpec{})
		}
		blockers, err := a.dismantle(ctx, was, live, keep)
		if err != nil || len(blockers) > 0 {
			return nil, errors.Join(stillThere(blockers), err)
		}
		if was != p.key {
			a.forget(was)
		}
		live = nil
	}
	if live == nil {
		return a.createAppliedWork(ctx, p, desired)
	}
	was := keyOf(live, p.key)
	if was.source != p.key.source {
		return nil, fmt.Errorf("%w by a work of another source", errTaken)
	}
	if was != p.key {
		// The work was made again under the same name: what is there is its own
		// now, and what it does not want is pruned.
		a.forget(was)
	}
	return a.updateAppliedWork(ctx, desired, live)
}

// keyOf says whose an AppliedManifestWork is. One without our annotations was
// left by another agent for the same hub: it is taken for claimant's.
func keyOf(live *workv1.AppliedManifestWork, claimant workKey) workKey {
	source, ok := live.Annotations[sourceAnnotation]
	if !ok {
		return claimant
	}
	return workKey{source, live.Annotations[idAnnotation]}
}

// elsewhere says whether an AppliedManifestWork is of another name of this
// cluster, and so not this agent's business. One without our annotation is not.
func (a *Applier) elsewhere(live *workv1.AppliedManifestWork) bool {
	of, ok := live.Annotations[clusterAnnotation]
	return ok && of != a.options.Cluster
}

// getAppliedWork returns nil if there is none.
func (a *Applier) getAppliedWork(ctx context.Context, name string) (*workv1.AppliedManifestWork, error) {
	ctx, cancel := a.client.limit(ctx)
	defer cancel()
	live, err := a.client.works.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return live, nil
}

// createAppliedWork lists the objects of the work in the creation itself, as far
// as there is room.
func (a *Applier) createAppliedWork(ctx context.Context, p *pass, desired *workv1.AppliedManifestWork) (*workv1.AppliedManifestWork, error) {
	desired = desired.DeepCopy()
	if text, ok := annotateInventory(p.listed(p.entries())); ok {
		desired.Annotations[inventoryAnnotation] = text
	}
	create := func() (*workv1.AppliedManifestWork, error) {
		ctx, cancel := a.client.limit(ctx)
		defer cancel()
		return a.client.works.Create(ctx, desired, metav1.CreateOptions{FieldManager: updateManager})
	}
	live, err := create()
	if typeMissing(err) {
		if err := a.InstallCRD(ctx); err != nil {
			return nil, err
		}
		live, err = create()
	}
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	p.fresh = true
	return live, nil
}

func (a *Applier) updateAppliedWork(ctx context.Context, desired, live *workv1.AppliedManifestWork) (*workv1.AppliedManifestWork, error) {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		next := live.DeepCopy()
		next.Labels = mergeMap(live.Labels, desired.Labels)
		next.Annotations = mergeMap(live.Annotations, desired.Annotations)
		if desired.Annotations[executorAnnotation] == "" {
			delete(next.Annotations, executorAnnotation)
		}
		next.Spec = desired.Spec
		if !slices.Contains(next.Finalizers, api.AppliedWorkFinalizer) {
			next.Finalizers = append(next.Finalizers, api.AppliedWorkFinalizer)
		}
		if maps.Equal(next.Labels, live.Labels) && maps.Equal(next.Annotations, live.Annotations) &&
			next.Spec == live.Spec && len(next.Finalizers) == len(live.Finalizers) {
			return nil
		}
		ctx, cancel := a.client.limit(ctx)
		defer cancel()
		after, err := a.client.works.Update(ctx, next, metav1.UpdateOptions{FieldManager: updateManager})
		if err == nil {
			live = after
			return nil
		}
		if fresh, getErr := a.client.works.Get(ctx, live.Name, metav1.GetOptions{}); apierrors.IsConflict(err) && getErr == nil {
			live = fresh
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update: %w", err)
	}
	return live, nil
}

// writeInventory stores which objects the work has.
func (a *Applier) writeInventory(ctx context.Context, key workKey, h *holding, entries []entry) error {
	for i := range entries {
		if uid := a.index.uid(entries[i].objectID); uid != "" {
			entries[i].UID = uid
		}
	}
	// The UID keeps it from being written into a later object of the same name.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": h.uid},
		"status":   map[string]any{"appliedResources": writeInventory(entries)},
	})
	if err != nil {
		return err
	}
	id := appliedWorkID(h.name)
	asked := a.index.wanted(id, key)
	a.index.begin(id)
	call, cancel := a.client.limit(ctx)
	defer cancel()
	live, err := a.client.works.Patch(call, h.name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: updateManager}, "status")
	if err != nil {
		a.bell.ring(a.index.end(id, key, asked, outcome{}, nil, digest{})...)
		return fmt.Errorf("write the inventory of AppliedManifestWork %s: %w", h.name, err)
	}
	h.entries, h.unlisted, h.reminded = entries, false, false
	a.bell.ring(a.index.end(id, key, asked, done(unchanged), live, digest{})...)
	return nil
}

func (a *Applier) held(key workKey) *holding {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holdings[key]
}

func (a *Applier) hold(key workKey, h *holding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holdings[key] = h
}

// forget drops what is remembered of a work.
func (a *Applier) forget(key workKey) {
	a.mu.Lock()
	h := a.holdings[key]
	delete(a.holdings, key)
	a.mu.Unlock()
	a.rights.forget(key)
	a.arrivals.await(key, nil)
	if h == nil {
		return
	}
	a.index.release(appliedWorkID(h.name), key)
	for _, e := range h.entries {
		a.leave(e.objectID, key)
	}
	a.watches.sweep()
}
