package kube

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	toolscache "k8s.io/client-go/tools/cache"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// maxTombstones bounds what is remembered of works that vanished unconfirmed.
const maxTombstones = 10000

// A record is what this process knows of one work beside its object.
type record struct {
	// writing serialises what is read, decided and written for the work's
	// status.
	writing sync.Mutex

	// unsaved is the hash of the status that could not be saved last, "" if the
	// last one could. It is guarded by writing.
	unsaved string

	// The rest is guarded by Source.mu.

	// sequence is that of the last report taken.
	sequence codec.Sequence
	// written is the work as this process wrote it last, until the cache has it.
	written *workv1.ManifestWork
	// managed says that the work once had the finalizer: it may have been
	// published.
	managed bool
	// confirmed says that the cluster confirmed the deletion.
	confirmed bool
}

// recordOf returns the record of a work. Only the cache's events make and drop
// records, so that none outlives its work; one made here for a work whose event
// is on its way, or whose deletion is, is forgotten after use.
func (s *Source) recordOf(id string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec, ok := s.records[id]; ok {
		return rec
	}
	return &record{}
}

// newest returns what this process wrote if the cache does not have it yet,
// and w otherwise.
func (s *Source) newest(w *workv1.ManifestWork) *workv1.ManifestWork {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.records[string(w.UID)]
	if rec == nil || rec.written == nil {
		return w
	}
	if older(w, rec.written) {
		return rec.written
	}
	rec.written = nil
	return w
}

// wrote remembers what the API server answered to a write.
func (s *Source) wrote(w *workv1.ManifestWork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.records[string(w.UID)]
	if !ok {
		return
	}
	if rec.written == nil || older(rec.written, w) {
		rec.written = w
	}
	rec.managed = rec.managed || hasFinalizer(w)
}

// older compares versions of one object. Where the API server's versions cannot
// be compared, nothing is older and the cache is believed.
func older(a, b *workv1.ManifestWork) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

// holds says whether the source speaks of the work to its cluster. It does not
// of a deleted work that was never published, nor once the deletion was
// confirmed, though finalizers of others may keep the object.
func (s *Source) holds(w *workv1.ManifestWork) bool {
	if w.DeletionTimestamp == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.records[string(w.UID)]
	if rec == nil {
		return hasFinalizer(w)
	}
	return !rec.confirmed && (rec.managed || hasFinalizer(w))
}

func hasFinalizer(w *workv1.ManifestWork) bool {
	return slices.Contains(w.Finalizers, api.WorkFinalizer)
}

func (s *Source) added(obj any) {
	if w, ok := obj.(*workv1.ManifestWork); ok {
		s.seen(w, true)
	}
}

func (s *Source) updated(before, after any) {
	old, ok := before.(*workv1.ManifestWork)
	if !ok {
		return
	}
	if w, ok := after.(*workv1.ManifestWork); ok {
		s.seen(w, publishable(old, w))
	}
}

// seen brings the record up to the cache and has the work published if it
// changed.
func (s *Source) seen(w *workv1.ManifestWork, changed bool) {
	s.mu.Lock()
	rec, ok := s.records[string(w.UID)]
	if !ok {
		rec = &record{}
		s.records[string(w.UID)] = rec
	}
	rec.managed = rec.managed || hasFinalizer(w)
	if rec.written != nil && !older(w, rec.written) {
		rec.written = nil
	}
	notify := s.changed
	s.mu.Unlock()
	if changed && notify != nil {
		notify(key(w))
	}
}

// publishable says whether the cluster shall see the difference, or the work
// lost its finalizer and needs it again.
func publishable(old, w *workv1.ManifestWork) bool {
	return old.Generation != w.Generation ||
		old.DeletionTimestamp.IsZero() != w.DeletionTimestamp.IsZero() ||
		hasFinalizer(old) && !hasFinalizer(w) ||
		!maps.Equal(old.Labels, w.Labels) ||
		!maps.Equal(published(old.Annotations), published(w.Annotations))
}

// published leaves out the annotation that never leaves the hub.
func published(annotations map[string]string) map[string]string {
	if _, ok := annotations[corev1.LastAppliedConfigAnnotation]; !ok {
		return annotations
	}
	out := maps.Clone(annotations)
	delete(out, corev1.LastAppliedConfigAnnotation)
	return out
}

func (s *Source) deleted(obj any) {
	if unknown, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	w, ok := obj.(*workv1.ManifestWork)
	if !ok {
		return
	}
	held := s.holds(w)
	s.mu.Lock()
	rec, notify := s.records[string(w.UID)], s.changed
	delete(s.records, string(w.UID))
	unconfirmed := held && rec != nil && (rec.managed || hasFinalizer(w))
	s.mu.Unlock()
	// A replica that does not lead cannot tell a forced removal from one that
	// the leader confirmed.
	if unconfirmed && notify != nil {
		s.bury(w)
		notify(key(w))
	}
}

// bury remembers a work that vanished before its cluster confirmed.
func (s *Source) bury(w *workv1.ManifestWork) {
	log := s.log.With("cluster", w.Namespace, "work", w.Name, "id", w.UID)
	dead := w.DeepCopy()
	if dead.DeletionTimestamp == nil {
		// The API server counts a deletion as a generation, unless the object
		// is gone at once.
		now := metav1.NewTime(time.Now().UTC())
		dead.DeletionTimestamp = &now
		dead.Generation++
	}
	b, err := codec.NewBundle(s.id, dead)
	if err != nil {
		log.Warn("work was removed by force and its deletion cannot be published; its objects stay on the cluster", "err", err)
		return
	}
	s.mu.Lock()
	full := len(s.tombstones) >= maxTombstones
	if !full {
		s.tombstones[b.ID] = b
	}
	s.mu.Unlock()
	if full {
		log.Warn("work was removed by force and too many others were too; its objects stay on the cluster", "remembered", maxTombstones)
		return
	}
	log.Warn("work was removed by force before its cluster confirmed; publishing its deletion until it does")
}
