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
// finalizer somebody removed by force is remembered with its whole identity, as a
// tombstone, and the deletion is published until it is confirmed. Tombstones are
// in the status of the cluster's Agent, so they outlast this process; those that
// the cluster confirmed stay there for a while, for an agent that comes back with
// older data of its own.
//
// Nothing is deleted for being absent. A work that was removed by force while no
// hub ran cannot be known: it stays on its cluster and shows as unclaimed, until
// an operator names it in the spec of the Agent.
//
// Of many deletions at once those beyond the [Breaker] are withheld until the
// works are annotated, also where their namespace is being deleted. The condition
// on the work keeps that decision. A work that is removed by force while its
// deletion is withheld, or beyond the limit, becomes an unclaimed one.
//
// # Restores
//
// An API server that is put back to a backup under a running hub tells nobody.
// [Source.Guard] finds out, in every replica, and ends the process: the next one
// reads what there is.
//
// # Replicas
//
// A Source writes only when a Dispatcher calls it. A replica that waits for
// leadership has a Source too, for its warm cache, and starts its dispatcher and
// Run once it leads.
package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
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

	// Namespace is where the lifetime of the source is kept. Default: default.
	Namespace string

	// Breaker says how many works may be deleted at once. Default:
	// DefaultBreaker.
	Breaker *Breaker

	// Check says what the hub has against a work that codec would send, and what to
	// do about it: the reason of the condition api.ConditionDispatched and its
	// message, or no reason. Such a work is not sent until it is changed. The answer
	// depends on nothing but the spec, which Check must not change. Deletions are
	// not checked. Default: nothing.
	Check func(*workv1.ManifestWork) (reason, message string)
}

// A Source is the works of one hub. It implements sources.Source and all that a
// source may be besides: Refuser, Lifetime, Roster and Noter. Make one with New.
type Source struct {
	id         string
	namespace  string
	breaker    Breaker
	check      func(*workv1.ManifestWork) (reason, message string)
	reader     client.Reader // The cache.
	live       client.Reader // The API server.
	writer     client.Client
	events     events.EventRecorder
	notes      flowcontrol.RateLimiter
	works      toolscache.ResourceEventHandlerRegistration
	agents     toolscache.ResourceEventHandlerRegistration
	empty      string // The hash of an empty status.
	log        *slog.Logger
	coalescing time.Duration
	again      time.Duration // Until it is looked again for a namespace that is missing.
	guarding   time.Duration // Between two looks of Guard.

	// digests and hashes count how many were computed.
	digests, hashes atomic.Int64

	mu       sync.Mutex
	changed  func(sources.Key)                            // Nil until Notify.
	queue    workqueue.TypedRateLimitingInterface[string] // Of clusters whose Agent is to be written; nil unless Run runs.
	records  map[string]*record                           // By ID.
	clusters map[string]*clusterRecord
	latest   string // The highest resource version that the API server is known to have had.
}

var (
	_ sources.Source   = (*Source)(nil)
	_ sources.Refuser  = (*Source)(nil)
	_ sources.Lifetime = (*Source)(nil)
	_ sources.Roster   = (*Source)(nil)
	_ sources.Noter    = (*Source)(nil)
)

// New returns the source of all works in the hub behind c, known on the wire as
// sourceID. It adds an index and handlers to the cache of c, which the caller
// starts. The CRDs of ManifestWork and Agent must be installed, and sourceID must
// be usable as the name of an object.
func New(ctx context.Context, c cluster.Cluster, sourceID string, o Options) (*Source, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Breaker == nil {
		o.Breaker = &DefaultBreaker
	}
	empty, err := codec.HashStatus(workv1.ManifestWorkStatus{})
	if err != nil {
		return nil, fmt.Errorf("hash an empty status: %w", err)
	}
	s := &Source{
		id:         sourceID,
		namespace:  cmp.Or(o.Namespace, metav1.NamespaceDefault),
		breaker:    *o.Breaker,
		check:      o.Check,
		reader:     c.GetCache(),
		live:       c.GetAPIReader(),
		writer:     c.GetClient(),
		events:     c.GetEventRecorder(fieldManager),
		notes:      flowcontrol.NewTokenBucketRateLimiter(noteRate, noteBurst),
		empty:      empty,
		log:        o.Log,
		coalescing: coalescing,
		again:      namespaceRetry,
		guarding:   guardInterval,
		records:    map[string]*record{},
		clusters:   map[string]*clusterRecord{},
	}
	err = c.GetFieldIndexer().IndexField(ctx, &workv1.ManifestWork{}, byUID, func(o client.Object) []string {
		return []string{string(o.GetUID())}
	})
	if err != nil {
		return nil, fmt.Errorf("index ManifestWorks by UID: %w", err)
	}
	s.works, err = watch(ctx, c, &workv1.ManifestWork{}, toolscache.ResourceEventHandlerFuncs{
		AddFunc: s.added, UpdateFunc: s.updated, DeleteFunc: s.deleted,
	})
	if err != nil {
		return nil, fmt.Errorf("watch ManifestWorks: %w", err)
	}
	s.agents, err = watch(ctx, c, &v1alpha1.Agent{}, toolscache.ResourceEventHandlerFuncs{
		AddFunc: s.agentAdded, UpdateFunc: s.agentUpdated, DeleteFunc: s.agentDeleted,
	})
	if err != nil {
		return nil, fmt.Errorf("watch Agents: %w", err)
	}
	return s, nil
}

func watch(ctx context.Context, c cluster.Cluster, of client.Object, handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	informer, err := c.GetCache().GetInformer(ctx, of, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	return informer.AddEventHandler(handler)
}

// Notify has changed called for every work that has to be published from now
// on, usually Dispatcher.Changed. It must not block. What changed before is
// found when the dispatcher compares.
func (s *Source) Notify(changed func(sources.Key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = changed
}

// Loaded says whether the source knows all works and tombstones.
func (s *Source) Loaded() bool { return s.works.HasSynced() && s.agents.HasSynced() }

// errFilling is why a source that is not loaded answers nothing.
func (s *Source) errFilling() error {
	what := "ManifestWorks"
	if s.works.HasSynced() {
		what = "Agents"
	}
	return fmt.Errorf("%w: the cache of %s is filling", sources.ErrNotLoaded, what)
}

// Bundle implements sources.Source. It puts the finalizer on a work that is not
// being deleted and lacks it. A deletion that the cluster confirmed is returned
// as long as it is remembered.
func (s *Source) Bundle(ctx context.Context, k sources.Key) (codec.Bundle, bool, error) {
	w, ok, err := s.find(ctx, k.ID)
	if err != nil {
		return codec.Bundle{}, false, err
	}
	if !ok {
		return s.bundleOfTombstone(k)
	}
	if w.Namespace != k.Cluster || !s.holds(w) {
		return codec.Bundle{}, false, nil
	}
	if w.DeletionTimestamp == nil && !slices.Contains(w.Finalizers, api.WorkFinalizer) {
		if w, err = s.addFinalizer(ctx, w); err != nil {
			return codec.Bundle{}, false, err
		}
	}
	// The dispatcher needs the version that it does not send.
	unsent := codec.Bundle{ID: k.ID, Source: s.id, Cluster: k.Cluster, Generation: generation(w)}
	if s.withholds(w) {
		return unsent, false, s.errWithheld()
	}
	b, err := s.newBundle(w)
	if err != nil {
		return unsent, false, err
	}
	return b, true, nil
}

// newBundle is what is sent of a work, if it can be and the hub has nothing
// against it.
func (s *Source) newBundle(w *workv1.ManifestWork) (codec.Bundle, error) {
	b, err := codec.NewBundle(s.id, w)
	if err != nil || s.check == nil || b.Deleting() {
		return b, err
	}
	if reason, message := s.check(w); reason != "" {
		return codec.Bundle{}, &refusal{reason, message}
	}
	return b, nil
}

func (s *Source) bundleOfTombstone(k sources.Key) (codec.Bundle, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[k.Cluster]
	if c == nil {
		return codec.Bundle{}, false, nil
	}
	t, ok := c.tombstones[k.ID]
	if !ok {
		return codec.Bundle{}, false, nil
	}
	b, err := s.bundle(k.Cluster, t)
	if err != nil {
		return codec.Bundle{ID: k.ID, Source: s.id, Cluster: k.Cluster, Generation: t.Generation}, false, err
	}
	return b, true, nil
}

// Clusters implements sources.Source: the namespaces that have works, or
// deletions to be confirmed.
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
	for cluster, c := range s.clusters {
		if c.unconfirmed > 0 {
			set[cluster] = struct{}{}
		}
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
		return nil, s.errFilling()
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

func key(w *workv1.ManifestWork) sources.Key { return keyOf(w.Namespace, string(w.UID)) }

func keyOf(cluster, id string) sources.Key { return sources.Key{Cluster: cluster, ID: id} }
