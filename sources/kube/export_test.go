package kube

import (
	"context"
	"time"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
)

// Save is what Report does with a report on a work that it found.
func (s *Source) Save(ctx context.Context, w *workv1.ManifestWork, r codec.Report) (sources.Verdict, error) {
	return s.save(ctx, w, r, true)
}

// Confirm is what Report does with a confirmed deletion of a work that it found.
func (s *Source) Confirm(ctx context.Context, w *workv1.ManifestWork, r codec.Report) (sources.Verdict, error) {
	return s.confirm(ctx, w, s.recordOf(string(w.UID)), r)
}

// Remembers says whether the source keeps a record of the work.
func (s *Source) Remembers(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.records[id]
	return ok
}

// Coalesce has confirmed deletions wait that long to be saved.
func (s *Source) Coalesce(d time.Duration) { s.coalescing = d }

// Computed is how many content digests and status hashes Held computed.
func (s *Source) Computed() (digests, hashes int64) { return s.digests.Load(), s.hashes.Load() }

// Guarding has Guard look that often.
func (s *Source) Guarding(d time.Duration) { s.guarding = d }

// Publishable says whether a change has a work published.
func Publishable(old, w *workv1.ManifestWork) bool { return publishable(old, w) }

// WithheldIn is how many deletions of a cluster are withheld.
func (s *Source) WithheldIn(cluster string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clusterOf(cluster).deletions.withheld)
}

// LookAgain has the source look for a missing namespace that often.
func (s *Source) LookAgain(d time.Duration) { s.again = d }
