package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// Report implements sources.Source. The agent's status replaces the work's, all
// but the condition that the hub owns. A confirmed deletion takes the finalizer
// off.
//
// This process knows the sequence of the last report that it took, and the API
// does not. So the first report on a work after a restart may be one that comes
// again and is older than the status: it is taken as Unordered, and the cluster
// corrects it.
func (s *Source) Report(ctx context.Context, r codec.Report) (sources.Verdict, error) {
	w, ok, err := s.find(ctx, r.ID)
	if err != nil {
		return "", err
	}
	if ok && w.Namespace != r.Cluster {
		return sources.Foreign, nil
	}
	gone, err := r.Deleted()
	if err != nil {
		s.log.Warn("report cannot be read and is dropped", "cluster", r.Cluster, "id", r.ID, "generation", r.Generation, "err", err)
		return sources.Invalid, nil
	}
	if !ok {
		return s.reportOnTombstone(r, gone), nil
	}
	rec := s.recordOf(r.ID)
	rec.writing.Lock()
	defer rec.writing.Unlock()
	w = s.newest(w)
	if gone {
		return s.confirm(ctx, w, rec, r)
	}

	s.mu.Lock()
	last := rec.sequence
	s.mu.Unlock()
	if r.Sequence <= last || r.Generation < reported(w) {
		return sources.Stale, nil
	}
	var verdict sources.Verdict
	if isAhead(w, r) {
		verdict, err = s.reportAhead(ctx, w, r)
	} else {
		verdict, err = s.save(ctx, w, r, last != 0)
	}
	if verdict == sources.Invalid {
		s.dropped(rec, w, r, err)
		return verdict, nil
	}
	if verdict == sources.Accepted || verdict == sources.Unordered || verdict == sources.Unchanged {
		rec.unsaved = ""
		// Of what was not taken the sequence does not count: it may be taken
		// when it comes again.
		s.mu.Lock()
		rec.sequence = r.Sequence
		s.mu.Unlock()
	}
	return verdict, err
}

// confirm takes the finalizer off a work whose cluster says that its objects
// are gone. It does not believe that of an earlier generation than is being
// deleted: that cluster may have something newer on its way than what it speaks
// of. It does of a later one, which a cluster has when the hub was restored from
// a backup: UIDs never recur, so there is nothing else that it can speak of.
func (s *Source) confirm(ctx context.Context, w *workv1.ManifestWork, rec *record, r codec.Report) (sources.Verdict, error) {
	early := func(w *workv1.ManifestWork) bool { return w.DeletionTimestamp == nil || r.Generation < generation(w) }
	if isDeleted(w, r) {
		return s.reportDeleted(ctx, w, r)
	}
	if early(w) {
		return sources.Stale, nil
	}
	verdict := sources.Accepted
	// Set before the write: the object may be gone before the answer is here.
	s.setConfirmed(r.ID, true)
	err := s.onNewest(ctx, w, func(w *workv1.ManifestWork) error {
		if early(w) {
			verdict = sources.Stale
			return nil
		}
		if !hasFinalizer(w) {
			return nil
		}
		_, err := s.patch(ctx, w, patch{Metadata: metadata{
			UID: w.UID, ResourceVersion: w.ResourceVersion,
			Finalizers: new(slices.DeleteFunc(slices.Clone(w.Finalizers), func(f string) bool { return f == api.WorkFinalizer })),
		}})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) {
		s.setConfirmed(r.ID, false)
		return "", fmt.Errorf("take the finalizer off work %s/%s: %w", w.Namespace, w.Name, err)
	}
	if verdict == sources.Stale {
		s.setConfirmed(r.ID, false)
		return verdict, nil
	}
	s.settle(w, rec)
	return verdict, nil
}

func (s *Source) setConfirmed(id string, confirmed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The record may be gone with the object; it is not made again.
	if rec, ok := s.records[id]; ok {
		rec.confirmed = confirmed
	}
}

// isAhead says that a report is of a later generation than the work has. A work
// that is being deleted has no later one: its cluster was ahead before.
func isAhead(w *workv1.ManifestWork, r codec.Report) bool {
	return w.DeletionTimestamp == nil && r.Generation > generation(w)
}

// save writes the agent's status if it differs. ordered says that the report is
// later than all that this process took. With Invalid the error says why.
func (s *Source) save(ctx context.Context, w *workv1.ManifestWork, r codec.Report, ordered bool) (sources.Verdict, error) {
	have, err := s.statusHash(w, s.recordOf(r.ID))
	if err != nil {
		return "", err
	}
	if r.Hash == have && !ahead(w) {
		return sources.Unchanged, nil
	}
	status, err := r.Status()
	if err != nil {
		return sources.Invalid, err
	}
	status.Conditions = agentConditions(status.Conditions)
	if hash, err := codec.HashStatus(status); err == nil && hash == have && !ahead(w) {
		return sources.Unchanged, nil
	}
	var verdict sources.Verdict
	cached := w
	err = s.patchStatus(ctx, w, func(w *workv1.ManifestWork) *patchedStatus {
		// After a conflict, w is what somebody else wrote meanwhile: another
		// leader may have saved a later report.
		if isAhead(w, r) || r.Generation < reported(w) {
			verdict = sources.Stale
			return nil
		}
		verdict = sources.Accepted
		if (!ordered || w != cached) && reportedOn(w, r.Generation) {
			verdict = sources.Unordered
		}
		conditions := slices.Clone(status.Conditions)
		if own := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched); own != nil && !ahead(w) {
			conditions = append(conditions, *own)
		}
		return &patchedStatus{
			Conditions:     conditions,
			ResourceStatus: &patchedResources{Manifests: status.ResourceStatus.Manifests},
		}
	})
	switch {
	case err == nil:
		return verdict, nil
	case apierrors.IsNotFound(err):
		return sources.Unknown, nil
	}
	err = fmt.Errorf("write the status of work %s/%s: %w", w.Namespace, w.Name, err)
	if permanent(err) {
		return sources.Invalid, err
	}
	return "", err
}

// reportedOn says that the work's status may be of the same generation as a
// report, so that only sequences could tell which is newer.
func reportedOn(w *workv1.ManifestWork, generation int64) bool {
	status := agentStatus(w)
	if len(status.Conditions) == 0 && len(status.ResourceStatus.Manifests) == 0 {
		return false
	}
	of := reported(w)
	return of == 0 || of == generation
}

// permanent says of an error of the API server that the same write fails the
// same way. A permission that is missing counts: what was dropped for it is
// reported again when the dispatcher compares.
func permanent(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err) ||
		apierrors.IsRequestEntityTooLargeError(err) ||
		// What etcd says of a request, and its client of a message. The API
		// server passes both on as an error without a reason.
		strings.Contains(err.Error(), "request is too large") || strings.Contains(err.Error(), "message larger than max")
}

// dropped says, once per status, that what a cluster reported can never be
// saved: in the log, and in an event on the work for its owner.
func (s *Source) dropped(rec *record, w *workv1.ManifestWork, r codec.Report, reason error) {
	status := cmp.Or(r.Hash, reason.Error())
	if rec.unsaved == status {
		return
	}
	rec.unsaved = status
	s.log.Warn("report cannot be saved as a work's status and is dropped", "cluster", r.Cluster, "work", w.Name, "id", r.ID,
		"generation", r.Generation, "err", reason)
	s.events.Eventf(w, nil, corev1.EventTypeWarning, api.ReasonStatusNotSaved, "Report", "%s",
		note(reason, "The status is that of an earlier report. If it is too large, split the work or have it feed back less."))
}

// A patch is a JSON merge patch of a work, of the version that it names.
type patch struct {
	Metadata metadata       `json:"metadata"`
	Status   *patchedStatus `json:"status,omitempty"`
}

type metadata struct {
	UID             types.UID `json:"uid"`
	ResourceVersion string    `json:"resourceVersion"`
	Finalizers      *[]string `json:"finalizers,omitempty"`
}

// A patchedStatus without an omitempty: null removes what was there.
type patchedStatus struct {
	Conditions     []metav1.Condition `json:"conditions"`
	ResourceStatus *patchedResources  `json:"resourceStatus,omitempty"`
}

type patchedResources struct {
	Manifests []workv1.ManifestCondition `json:"manifests"`
}

// patch writes metadata of a work and returns it as it is now.
func (s *Source) patch(ctx context.Context, w *workv1.ManifestWork, p patch) (*workv1.ManifestWork, error) {
	return s.write(w, p, func(out *workv1.ManifestWork, raw client.Patch) error {
		return s.writer.Patch(ctx, out, raw, client.FieldOwner(fieldManager))
	})
}

// patchStatus writes the status that change makes of a work, or nothing if that
// is nil. Unlike the UID, the version in it counts for a patch of the status, and
// keeps it from another work.
func (s *Source) patchStatus(ctx context.Context, w *workv1.ManifestWork, change func(*workv1.ManifestWork) *patchedStatus) error {
	return s.onNewest(ctx, w, func(w *workv1.ManifestWork) error {
		status := change(w)
		if status == nil {
			return nil
		}
		p := patch{Metadata: metadata{UID: w.UID, ResourceVersion: w.ResourceVersion}, Status: status}
		_, err := s.write(w, p, func(out *workv1.ManifestWork, raw client.Patch) error {
			return s.writer.Status().Patch(ctx, out, raw, client.FieldOwner(fieldManager))
		})
		return err
	})
}

// onNewest calls write with w, and after a conflict with the work as the API
// server has it. A work of the same name that is another counts as not found.
func (s *Source) onNewest(ctx context.Context, w *workv1.ManifestWork, write func(*workv1.ManifestWork) error) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		conflict := write(w)
		if !apierrors.IsConflict(conflict) {
			return conflict
		}
		live := &workv1.ManifestWork{}
		if err := s.live.Get(ctx, client.ObjectKeyFromObject(w), live); err != nil {
			return err
		}
		if live.UID != w.UID {
			return apierrors.NewNotFound(workv1.Resource("manifestworks"), w.Name)
		}
		w = live
		return conflict
	})
}

func (s *Source) write(w *workv1.ManifestWork, p patch, send func(*workv1.ManifestWork, client.Patch) error) (*workv1.ManifestWork, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	out := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name}}
	if err := send(out, client.RawPatch(types.MergePatchType, raw)); err != nil {
		return nil, err
	}
	if out.UID == w.UID {
		s.wrote(out)
	}
	return out, nil
}
