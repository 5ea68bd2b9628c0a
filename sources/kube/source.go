// Package kube is a source of all ManifestWorks in a hub's API server. The
// namespace of a work is the name of its cluster, its UID is its ID on the wire.
//
// # Reading
//
// Everything is read from the informer cache of a controller-runtime cluster.
// What this process itself wrote is remembered until the cache has it, so that
// nothing is decided on what this process knows to be old.
//
// # Deletion
//
// A work gets api.WorkFinalizer before it is published for the first time, so
// its object stays until its cluster confirmed the deletion. A work whose
// finalizer somebody removed by force is remembered in memory with its whole
// identity, and the deletion is published until it is confirmed. That memory
// does not outlast this process, and a replica that does not lead keeps none.
//
// # Replicas
//
// A Source writes only when a Dispatcher calls it. A replica that waits for
// leadership has a Source too, for its warm cache, and starts its dispatcher
// once it leads.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// fieldManager signs what the hub writes to works.
const fieldManager = "fleetcast-hub"

// byUID is the field index of works.
const byUID = "metadata.uid"

// Options tune a Source. The zero value works.
type Options struct {
	// Log is where the source tells what an operator acts on. Default: nowhere.
	Log *slog.Logger
}

// A Source is the works of one hub. It implements sources.Source and
// sources.Refuser. Make one with New.
type Source struct {
	id       string
	reader   client.Reader // The cache.
	live     client.Reader // The API server.
	writer   client.Client
	events   events.EventRecorder
	informer cache.Informer
	empty    string // The hash of an empty status.
	log      *slog.Logger

	mu         sync.Mutex
	changed    func(sources.Key) // Nil until Notify.
	records    map[string]*record
	tombstones map[string]codec.Bundle
}

var (
	_ sources.Source  = (*Source)(nil)
	_ sources.Refuser = (*Source)(nil)
)

// New returns the source of all works in the hub behind c, known on the wire as
// sourceID. It adds an index and a handler to the cache of c, which the caller
// starts. The ManifestWork CRD must be installed.
func New(ctx context.Context, c cluster.Cluster, sourceID string, o Options) (*Source, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	empty, err := codec.HashStatus(workv1.ManifestWorkStatus{})
	if err != nil {
		return nil, fmt.Errorf("hash an empty status: %w", err)
	}
	s := &Source{
		id:         sourceID,
		reader:     c.GetCache(),
		live:       c.GetAPIReader(),
		writer:     c.GetClient(),
		events:     c.GetEventRecorder(fieldManager),
		empty:      empty,
		log:        o.Log,
		records:    map[string]*record{},
		tombstones: map[string]codec.Bundle{},
	}
	err = c.GetFieldIndexer().IndexField(ctx, &workv1.ManifestWork{}, byUID, func(o client.Object) []string {
		return []string{string(o.GetUID())}
	})
	if err != nil {
		return nil, fmt.Errorf("index ManifestWorks by UID: %w", err)
	}
	s.informer, err = c.GetCache().GetInformer(ctx, &workv1.ManifestWork{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watch ManifestWorks: %w", err)
	}
	if _, err := s.informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    s.added,
		UpdateFunc: s.updated,
		DeleteFunc: s.deleted,
	}); err != nil {
		return nil, fmt.Errorf("watch ManifestWorks: %w", err)
	}
	return s, nil
}

// Notify has changed called for every work that has to be published from now
// on, usually Dispatcher.Changed. It must not block. What changed before is
// found when the dispatcher compares.
func (s *Source) Notify(changed func(sources.Key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = changed
}

// Loaded says whether the cache has all works.
func (s *Source) Loaded() bool { return s.informer.HasSynced() }

// Bundle implements sources.Source. It puts the finalizer on a work that is not
// being deleted and lacks it.
func (s *Source) Bundle(ctx context.Context, k sources.Key) (codec.Bundle, bool, error) {
	w, ok, err := s.find(ctx, k.ID)
	if err != nil {
		return codec.Bundle{}, false, err
	}
	if !ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, ok := s.tombstones[k.ID]
		return b, ok && b.Cluster == k.Cluster, nil
	}
	if w.Namespace != k.Cluster || !s.holds(w) {
		return codec.Bundle{}, false, nil
	}
	if w.DeletionTimestamp == nil && !slices.Contains(w.Finalizers, api.WorkFinalizer) {
		if w, err = s.addFinalizer(ctx, w); err != nil {
			return codec.Bundle{}, false, err
		}
	}
	b, err := codec.NewBundle(s.id, w)
	if err != nil {
		// The dispatcher needs the version that it gives up.
		b = codec.Bundle{ID: k.ID, Source: s.id, Cluster: k.Cluster, Generation: generation(w)}
		return b, false, err
	}
	return b, true, nil
}

// Held implements sources.Source.
//
// The reported generation of a work is the observedGeneration of its Applied
// condition: the agent sets it with every report of what it applied, and it is
// in the API, so that a new leader knows it too. The hash leaves out the
// condition that the hub itself owns.
func (s *Source) Held(ctx context.Context, cluster string) ([]sources.Held, error) {
	works, err := s.list(ctx, client.InNamespace(cluster))
	if err != nil {
		return nil, err
	}
	held := make([]sources.Held, 0, len(works))
	for i := range works {
		w := s.newest(&works[i])
		if !s.holds(w) {
			continue
		}
		hash, err := codec.HashStatus(agentStatus(w))
		if err != nil {
			return nil, fmt.Errorf("hash the status of work %s/%s: %w", w.Namespace, w.Name, err)
		}
		held = append(held, sources.Held{
			ID:         string(w.UID),
			Generation: generation(w),
			Deleting:   w.DeletionTimestamp != nil,
			Reported:   reported(w),
			StatusHash: hash,
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, b := range s.tombstones {
		if b.Cluster == cluster {
			held = append(held, sources.Held{ID: id, Generation: b.Generation, Deleting: true, StatusHash: s.empty})
		}
	}
	return held, nil
}

// Clusters implements sources.Source: the namespaces that have works.
func (s *Source) Clusters(ctx context.Context) ([]string, error) {
	works, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	set := map[string]struct{}{}
	for i := range works {
		set[works[i].Namespace] = struct{}{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.tombstones {
		set[b.Cluster] = struct{}{}
	}
	clusters := make([]string, 0, len(set))
	for c := range set {
		clusters = append(clusters, c)
	}
	return clusters, nil
}

// find returns the newest known state of the work with this UID. The caller
// must not change it.
func (s *Source) find(ctx context.Context, id string) (*workv1.ManifestWork, bool, error) {
	if id == "" {
		return nil, false, nil
	}
	works, err := s.list(ctx, client.MatchingFields{byUID: id})
	if err != nil || len(works) == 0 {
		return nil, false, err
	}
	return s.newest(&works[0]), true, nil
}

// list reads the cache without copying: the works are shared with it.
func (s *Source) list(ctx context.Context, opts ...client.ListOption) ([]workv1.ManifestWork, error) {
	if !s.Loaded() {
		return nil, fmt.Errorf("%w: the cache of ManifestWorks is filling", sources.ErrNotLoaded)
	}
	var works workv1.ManifestWorkList
	if err := s.reader.List(ctx, &works, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil, fmt.Errorf("list ManifestWorks: %w", err)
	}
	return works.Items, nil
}

// addFinalizer fails with a conflict if the work is newer than w. The
// dispatcher then tries again, and the cache may have caught up.
func (s *Source) addFinalizer(ctx context.Context, w *workv1.ManifestWork) (*workv1.ManifestWork, error) {
	out, err := s.patch(ctx, w, patch{
		Metadata: metadata{
			UID: w.UID, ResourceVersion: w.ResourceVersion,
			Finalizers: new(append(slices.Clone(w.Finalizers), api.WorkFinalizer)),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("put the finalizer on work %s/%s: %w", w.Namespace, w.Name, err)
	}
	return out, nil
}

// generation is the version of a work on the wire, as codec.NewBundle has it.
// Of a work that cannot be sent it is metadata.generation.
func generation(w *workv1.ManifestWork) int64 {
	n, err := codec.Generation(w)
	if err != nil {
		return w.Generation
	}
	return n
}

// reported is the generation of the last accepted report, 0 if there was none.
func reported(w *workv1.ManifestWork) int64 {
	for _, c := range w.Status.Conditions {
		if c.Type == workv1.WorkApplied {
			return c.ObservedGeneration
		}
	}
	return 0
}

// agentStatus is the status without what the hub itself put there.
func agentStatus(w *workv1.ManifestWork) workv1.ManifestWorkStatus {
	status := w.Status
	status.Conditions = agentConditions(w.Status.Conditions)
	return status
}

// agentConditions returns all conditions but the hub's own, and conditions
// itself if it has none.
func agentConditions(conditions []metav1.Condition) []metav1.Condition {
	isOwn := func(c metav1.Condition) bool { return c.Type == api.ConditionDispatched }
	if !slices.ContainsFunc(conditions, isOwn) {
		return conditions
	}
	return slices.DeleteFunc(slices.Clone(conditions), isOwn)
}

func key(w *workv1.ManifestWork) sources.Key {
	return sources.Key{Cluster: w.Namespace, ID: string(w.UID)}
}
