package kube

import (
	"slices"
	"sync"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

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
	// latest is the work as this process saw or wrote it last. The cache may not
	// have it yet, and who read the cache before it had it has an older one.
	latest *workv1.ManifestWork
	// managed says that the work once had the finalizer: it may have been
	// published.
	managed bool
	// confirmed says that the cluster confirmed the deletion.
	confirmed bool
	// decision is what the breaker made of the deletion.
	decision decision
	// expired says that the deletion is that of a finished work. The cluster's reports
	// on the deletion replace the condition that said so.
	expired bool
	// digest and status are those of the work as Held saw it last.
	digest digested
	status hashed
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

// newest returns the latest version of a work that this process knows, which is
// w if there is no later one.
func (s *Source) newest(w *workv1.ManifestWork) *workv1.ManifestWork {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.records[string(w.UID)]
	if rec == nil || rec.latest == nil || !older(w, rec.latest) {
		return w
	}
	return rec.latest
}

// wrote remembers what the API server answered to a write.
func (s *Source) wrote(w *workv1.ManifestWork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reachedLocked(w.ResourceVersion)
	rec, ok := s.records[string(w.UID)]
	if !ok {
		return
	}
	if rec.latest == nil || older(rec.latest, w) {
		rec.latest = w
	}
	rec.managed = rec.managed || hasFinalizer(w)
}

// older compares versions of one object. Where the API server's versions cannot
// be compared, nothing is older and the cache is believed.
func older(a, b *workv1.ManifestWork) bool {
	return earlier(a.ResourceVersion, b.ResourceVersion)
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
	w, ok := after.(*workv1.ManifestWork)
	switch {
	case !ok:
	case old.UID != w.UID:
		// The cache was filled anew, and meanwhile one took the other's place.
		s.removed(old, false)
		s.seen(w, true)
	case older(w, old):
		// The API server went back, as when it was restored from a backup: what
		// this process saw or wrote later is no more.
		s.mu.Lock()
		if rec := s.records[string(w.UID)]; rec != nil {
			rec.latest = w
		}
		s.mu.Unlock()
		s.seen(w, true)
	default:
		s.seen(w, publishable(old, w))
	}
}

// seen brings the record up to the cache and has the work published if it
// changed.
func (s *Source) seen(w *workv1.ManifestWork, changed bool) {
	s.mu.Lock()
	s.reachedLocked(w.ResourceVersion)
	rec, ok := s.records[string(w.UID)]
	if !ok {
		rec = &record{}
		s.records[string(w.UID)] = rec
		c := s.clusterOf(w.Namespace)
		c.deletions.works++
		if c.agent == nil && c.state != nil || c.agent != nil && !hasAgentFinalizer(c.agent) {
			s.enqueue(w.Namespace)
		}
	}
	rec.managed = rec.managed || hasFinalizer(w)
	if rec.latest == nil || !older(w, rec.latest) {
		rec.latest = w
	}
	s.classify(w, rec)
	if rec.decision == undecided {
		s.enqueueAfter(w.Namespace, judging)
	}
	notify := s.changed
	// A confirmed deletion is not sent again for its finalizer being gone.
	changed = changed && !rec.confirmed
	s.mu.Unlock()
	if changed && notify != nil {
		notify(key(w))
	}
}

// publishable says whether the cluster shall see the difference, which is what
// changes the work's generation or digest; or the work lost its finalizer and
// needs it again, or its withheld deletion was confirmed.
func publishable(old, w *workv1.ManifestWork) bool {
	if old.DeletionTimestamp.IsZero() != w.DeletionTimestamp.IsZero() || generation(old) != generation(w) ||
		hasFinalizer(old) && !hasFinalizer(w) {
		return true
	}
	if w.DeletionTimestamp != nil {
		return !confirmedByOperator(old) && confirmedByOperator(w)
	}
	return !contentOf(old).equal(contentOf(w))
}

func (s *Source) deleted(obj any) {
	witnessed := true
	if unknown, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj, witnessed = unknown.Obj, false
	}
	if w, ok := obj.(*workv1.ManifestWork); ok {
		s.removed(w, witnessed)
	}
}

// removed takes note of a work that has no object any more. Unless that was
// witnessed, it is only missing where the cache was filled anew.
func (s *Source) removed(w *workv1.ManifestWork, witnessed bool) {
	held := s.holds(w)
	s.mu.Lock()
	id, notify := string(w.UID), s.changed
	rec := s.records[id]
	if rec == nil {
		s.mu.Unlock()
		return
	}
	if rec.latest != nil && older(w, rec.latest) {
		w = rec.latest
	}
	unconfirmed := held && (rec.managed || hasFinalizer(w))
	publish := unconfirmed && s.vanished(w, rec, witnessed, notify != nil)
	delete(s.records, id)
	d := &s.clusterOf(w.Namespace).deletions
	d.works--
	d.left(id)
	if d.works == 0 {
		s.enqueueLater(w.Namespace) // For the finalizer of the Agent.
	}
	s.forget(w.Namespace)
	s.mu.Unlock()
	if publish {
		notify(key(w))
	}
}

// vanished counts a deletion that nobody confirmed here, and says whether it is
// buried, to be published. A replica that does not lead cannot tell a forced
// removal from one that the leader confirmed. One that the breaker withholds is
// not published: the work stays on the cluster, unclaimed. So does one whose
// deletion nobody saw: an API server that was restored from a backup has none of
// the works made since. The caller holds mu.
func (s *Source) vanished(w *workv1.ManifestWork, rec *record, witnessed, leads bool) bool {
	id, c := string(w.UID), s.clusterOf(w.Namespace)
	if !witnessed && w.DeletionTimestamp == nil {
		s.log.Warn("work is missing on the API server, and nobody saw it deleted; it stays on the cluster, unclaimed",
			"cluster", w.Namespace, "work", w.Name, "id", id)
		return false
	}
	at := time.Now()
	if w.DeletionTimestamp != nil {
		at = w.DeletionTimestamp.Time
	}
	if !leads {
		if rec.decision != withheld && !expected(w, rec) {
			c.deletions.pass(passing{id: id, at: at})
		}
		return false
	}
	switch {
	case s.breaker.disabled() || confirmedByOperator(w):
		rec.decision = passed
	case rec.decision == undeleted:
		rec.decision = undecided
		c.deletions.enlist(id, at)
	}
	if rec.decision == undecided {
		s.judge(&c.deletions)
	}
	if rec.decision == withheld {
		s.log.Warn("work was removed by force while its deletion was withheld; it stays on the cluster, unclaimed",
			"cluster", w.Namespace, "work", w.Name, "id", id)
		return false
	}
	if !s.bury(w, rec, at) {
		return false
	}
	s.enqueue(w.Namespace)
	return true
}
