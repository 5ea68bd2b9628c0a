package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// Events that a cluster, or one deletion of many works, can cause without end
// are limited: so many per second, and so many at once. What is beyond is in the
// metrics and, of a deletion, in the condition of each work.
const (
	noteRate  = 1
	noteBurst = 30
)

// Dropped implements sources.Noter: it records an event on the work, if the
// cluster has it.
func (s *Source) Dropped(ctx context.Context, k sources.Key, reason string, err error) error {
	w, ok, lookUp := s.find(ctx, k.ID)
	if lookUp != nil || !ok || w.Namespace != k.Cluster {
		return lookUp
	}
	s.noteLimited(w, api.ReasonReportDropped, "Report", note(fmt.Errorf("dropped an event of the cluster (%s): %w", reason, err),
		"The status may be that of an earlier report. Look at the agent's version and its log."))
	return nil
}

// noteLimited records an event on a work, unless there were too many.
func (s *Source) noteLimited(w *workv1.ManifestWork, reason, action, message string) {
	if s.notes.TryAccept() {
		s.events.Eventf(w, nil, corev1.EventTypeWarning, reason, action, "%s", message)
	}
}
