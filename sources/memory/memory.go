// Package memory is a source that holds its works in this process, for tests
// and simulations.
//
// Works are named by cluster and name and have the IDs that OCM's sources mint,
// so a work that is deleted and put again has the same ID. Its generations go
// on rising: no version of the new one can be taken for the old one.
//
// A deletion is remembered after it was confirmed, so that a late copy of the
// work is known for what it is. [Source.Snapshot] is what a backup of the source
// would hold.
package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources"
)

// A Source implements sources.Source, sources.Lifetime and sources.Roster. Make
// one with New. It is safe for concurrent use.
type Source struct {
	id    string
	empty string // The hash of an empty status.

	mu          sync.Mutex
	notify      func(sources.Key)
	works       map[sources.Key]*Work
	clusters    map[string]map[sources.Key]*Work // The same works, by cluster.
	tombstones  map[sources.Key]codec.Bundle     // Deletions that were confirmed.
	generations map[sources.Key]int64            // The last one used, also of works that are gone.
	epoch       string
	term        int64 // Of the last lead.
	agents      map[string]sources.AgentState
	changed     chan struct{} // Closed and replaced at every change.
}

var _ sources.Source = (*Source)(nil)

// A Work is one work with what its cluster said of it.
type Work struct {
	// Bundle is the newest state. Its DeletedAt is set while the source waits
	// for the confirmation of a deletion.
	Bundle codec.Bundle
	// Report is the last one accepted; zero if there was none.
	Report codec.Report

	spec   *workv1.ManifestWork
	digest digest.Content
}

// New returns an empty source.
func New(sourceID string) *Source {
	empty, err := codec.HashStatus(workv1.ManifestWorkStatus{})
	if err != nil {
		panic(fmt.Sprintf("hash an empty status: %v", err)) // It holds nothing that cannot be hashed.
	}
	return &Source{
		id:          sourceID,
		empty:       empty,
		works:       map[sources.Key]*Work{},
		clusters:    map[string]map[sources.Key]*Work{},
		tombstones:  map[sources.Key]codec.Bundle{},
		generations: map[sources.Key]int64{},
		epoch:       rand.Text(),
		agents:      map[string]sources.AgentState{},
		changed:     make(chan struct{}),
	}
}

// Snapshot returns another source that holds what this one holds now, and
// changes independently: what a backup of it brings back, its lead, its epoch
// and what it keeps of agents included. Nobody is notified of its changes.
func (s *Source) Snapshot() *Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Source{
		id:          s.id,
		empty:       s.empty,
		works:       make(map[sources.Key]*Work, len(s.works)),
		clusters:    make(map[string]map[sources.Key]*Work, len(s.clusters)),
		tombstones:  maps.Clone(s.tombstones),
		generations: maps.Clone(s.generations),
		epoch:       s.epoch,
		term:        s.term,
		agents:      maps.Clone(s.agents),
		changed:     make(chan struct{}),
	}
	for k, w := range s.works {
		work := *w
		c.works[k] = &work
		c.index(k, &work)
	}
	return c
}

// Notify has changed called for every work that is put or deleted from now on,
// usually Dispatcher.Changed.
func (s *Source) Notify(changed func(sources.Key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = changed
}

// Key is the key that works of this cluster and name have.
func (s *Source) Key(cluster, name string) sources.Key {
	return sources.Key{Cluster: cluster, ID: codec.ResourceID(s.id, cluster, name)}
}

// Put creates or replaces the work of w's namespace and name. Its UID and
// generation are set here; w is not kept. Errors are those of codec.NewBundle.
func (s *Source) Put(w *workv1.ManifestWork) (sources.Key, error) {
	return s.put(w, time.Time{})
}

// Delete marks a work as deleted. It is held until its cluster confirmed. A
// work that does not exist or is deleted already stays as it is.
func (s *Source) Delete(cluster, name string) error {
	s.mu.Lock()
	w, ok := s.works[s.Key(cluster, name)]
	s.mu.Unlock()
	if !ok || w.Bundle.Deleting() {
		return nil
	}
	_, err := s.put(w.spec, time.Now().UTC())
	return err
}

func (s *Source) put(spec *workv1.ManifestWork, deletedAt time.Time) (sources.Key, error) {
	k := s.Key(spec.Namespace, spec.Name)
	spec = spec.DeepCopy()
	spec.UID = types.UID(k.ID)
	spec.DeletionTimestamp = nil
	if !deletedAt.IsZero() {
		spec.DeletionTimestamp = &metav1.Time{Time: deletedAt}
	}

	s.mu.Lock()
	spec.Generation = s.generations[k] + 1
	b, err := codec.NewBundle(s.id, spec)
	if err != nil {
		s.mu.Unlock()
		return k, err
	}
	content, err := b.Digest()
	if err != nil {
		s.mu.Unlock()
		return k, err
	}
	s.generations[k] = spec.Generation
	delete(s.tombstones, k)
	w := &Work{Bundle: b, spec: spec, digest: content}
	if old, ok := s.works[k]; ok {
		w.Report = old.Report
	}
	s.works[k] = w
	s.index(k, w)
	s.broadcast()
	notify := s.notify
	s.mu.Unlock()
	if notify != nil {
		notify(k)
	}
	return k, nil
}

// index adds a work to those of its cluster. It is called with the lock held.
func (s *Source) index(k sources.Key, w *Work) {
	if s.clusters[k.Cluster] == nil {
		s.clusters[k.Cluster] = map[sources.Key]*Work{}
	}
	s.clusters[k.Cluster][k] = w
}

// Work returns a work, and false once its deletion was confirmed.
func (s *Source) Work(cluster, name string) (Work, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.works[s.Key(cluster, name)]
	if !ok {
		return Work{}, false
	}
	return *w, true
}

// Await returns nil when cond holds, which it looks at now and after every
// change of the source, and the context's error if that ends first. cond may
// call the source.
func (s *Source) Await(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// broadcast is called with the lock held.
func (s *Source) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Bundle implements sources.Source. Of a work whose deletion was confirmed it
// returns the deletion.
func (s *Source) Bundle(_ context.Context, k sources.Key) (codec.Bundle, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.works[k]
	if !ok {
		b, ok := s.tombstones[k]
		return b, ok, nil
	}
	return w.Bundle, true, nil
}

// Held implements sources.Source.
func (s *Source) Held(_ context.Context, cluster string) ([]sources.Held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var held []sources.Held
	for k, w := range s.clusters[cluster] {
		h := sources.Held{
			ID:         k.ID,
			Generation: w.Bundle.Generation,
			Deleting:   w.Bundle.Deleting(),
			Digest:     w.digest,
			Reported:   w.Report.Generation,
			StatusHash: w.Report.Hash,
			Sequence:   w.Report.Sequence,
		}
		if w.Report.Sequence == 0 {
			h.StatusHash = s.empty
		}
		held = append(held, h)
	}
	return held, nil
}

// Clusters implements sources.Source.
func (s *Source) Clusters(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]struct{}{}
	var clusters []string
	for k := range s.works {
		if _, ok := seen[k.Cluster]; !ok {
			seen[k.Cluster] = struct{}{}
			clusters = append(clusters, k.Cluster)
		}
	}
	return clusters, nil
}

// Report implements sources.Source.
func (s *Source) Report(_ context.Context, r codec.Report) (sources.Verdict, error) {
	gone, err := r.Deleted()
	if err != nil {
		return sources.Invalid, nil // The verdict says it; trying again cannot help.
	}
	if r.Hash == "" {
		status, err := r.Status()
		if err != nil {
			return sources.Invalid, nil
		}
		if r.Hash, err = codec.HashStatus(status); err != nil {
			return sources.Invalid, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := sources.Key{Cluster: r.Cluster, ID: r.ID}
	w, ok := s.works[k]
	_, buried := s.tombstones[k]
	switch {
	case !ok && buried:
		return sources.Stale, nil
	case !ok && s.elsewhere(k):
		return sources.Foreign, nil
	case !ok:
		return sources.Unknown, nil
	case r.Generation > w.Bundle.Generation:
		return sources.Stale, nil
	case gone && w.Bundle.Deleting() && r.Generation == w.Bundle.Generation:
		// A confirmation of an earlier deletion says nothing of what was put
		// since and may still be on its way.
		delete(s.works, k)
		delete(s.clusters[k.Cluster], k)
		s.tombstones[k] = w.Bundle
	case gone, r.Sequence <= w.Report.Sequence, r.Generation < w.Report.Generation:
		return sources.Stale, nil
	case r.Hash == w.Report.Hash && r.Generation == w.Report.Generation:
		w.Report.Sequence = r.Sequence
		return sources.Unchanged, nil
	default:
		w.Report = r
	}
	s.broadcast()
	return sources.Accepted, nil
}

// elsewhere says whether another cluster has the ID.
func (s *Source) elsewhere(k sources.Key) bool {
	for other := range s.works {
		if other.ID == k.ID {
			return true
		}
	}
	return false
}
