package kube

import (
	"context"

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
	return s.confirm(ctx, w, r)
}

// Remembers says whether the source keeps a record of the work.
func (s *Source) Remembers(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.records[id]
	return ok
}
