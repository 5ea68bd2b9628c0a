package kube

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

const (
	// maxConfirmed and confirmedAge bound the confirmed tombstones of a cluster.
	maxConfirmed = 500
	confirmedAge = 30 * 24 * time.Hour
	// maxUnconfirmed bounds the others: what is beyond shows as unclaimed.
	maxUnconfirmed = v1alpha1.MaxTombstones - maxConfirmed
	// maxTombstoneBytes is how much of an object they may take. An API server
	// takes 1.5 MiB, and delete options may be long.
	maxTombstoneBytes = 768 << 10
)

// A tombstone is a deleted work without an object.
type tombstone struct {
	v1alpha1.Tombstone
	// What the cluster reports while it deletes; this is not saved, and the
	// cluster is asked again.
	sequence codec.Sequence
	reported int64
	status   string // The hash, "" for that of an empty status.
}

// bundle is what is published of the tombstone.
func (s *Source) bundle(cluster string, t *tombstone) (codec.Bundle, error) {
	return codec.NewBundle(s.id, t.Work(cluster))
}

// add makes the tombstone known, unless it is, and says so. The caller holds mu.
func (c *clusterRecord) add(t v1alpha1.Tombstone) bool {
	if _, ok := c.tombstones[t.ID]; ok {
		return false
	}
	c.tombstones[t.ID] = &tombstone{Tombstone: t}
	c.changes++
	return true
}

// confirm makes a tombstone a confirmed one. The caller holds mu.
func (c *clusterRecord) confirm(t *tombstone) {
	now := metav1.Now().Rfc3339Copy()
	t.ConfirmedAt = &now
	c.changes++
}

// merge takes over what another replica, or this one before a restart, saved.
// Confirmed wins: a cache that lags behind says less. The caller holds mu.
func (c *clusterRecord) merge(saved []v1alpha1.Tombstone) {
	for _, t := range saved {
		have, ok := c.tombstones[t.ID]
		if !ok {
			c.tombstones[t.ID] = &tombstone{Tombstone: t}
			c.deletions.pass(passing{id: t.ID, at: t.DeletedAt.Time, gone: true})
		} else if have.ConfirmedAt == nil {
			have.ConfirmedAt = t.ConfirmedAt
		}
	}
}

// unconfirmed counts the tombstones that are still to be confirmed. The caller
// holds mu.
func (c *clusterRecord) unconfirmed() int {
	n := 0
	for _, t := range c.tombstones {
		if t.ConfirmedAt == nil {
			n++
		}
	}
	return n
}

// trim forgets confirmed tombstones that are old or too many and returns what is
// to be saved, by ID. The caller holds mu.
func (c *clusterRecord) trim(now time.Time) []v1alpha1.Tombstone {
	all := make([]v1alpha1.Tombstone, 0, len(c.tombstones))
	for _, t := range c.tombstones {
		all = append(all, t.Tombstone)
	}
	// Unconfirmed first, then the latest.
	slices.SortFunc(all, func(a, b v1alpha1.Tombstone) int {
		switch {
		case (a.ConfirmedAt == nil) != (b.ConfirmedAt == nil):
			if a.ConfirmedAt == nil {
				return -1
			}
			return 1
		case a.ConfirmedAt != nil:
			return cmp.Or(b.ConfirmedAt.Compare(a.ConfirmedAt.Time), cmp.Compare(a.ID, b.ID))
		default:
			return cmp.Or(b.DeletedAt.Compare(a.DeletedAt.Time), cmp.Compare(a.ID, b.ID))
		}
	})
	keep, confirmed, size := all[:0], 0, 0
	for _, t := range all {
		size += sizeOf(t)
		if t.ConfirmedAt != nil {
			confirmed++
			if confirmed > maxConfirmed || size > maxTombstoneBytes || now.Sub(t.ConfirmedAt.Time) > confirmedAge {
				delete(c.tombstones, t.ID)
				continue
			}
		} else if len(keep) == maxUnconfirmed || size > maxTombstoneBytes {
			continue // Known to this process only.
		}
		keep = append(keep, t)
	}
	slices.SortFunc(keep, func(a, b v1alpha1.Tombstone) int { return cmp.Compare(a.ID, b.ID) })
	return slices.Clip(keep)
}

// sizeOf is about how many bytes a tombstone takes.
func sizeOf(t v1alpha1.Tombstone) int {
	const rest = 150 // Names of fields, two times and a number.
	size := rest + len(t.ID) + len(t.Name)
	if t.DeleteOption != nil {
		text, err := json.Marshal(t.DeleteOption)
		if err != nil {
			return maxTombstoneBytes + 1
		}
		size += len(text)
	}
	return size
}

// bury remembers a work that vanished before its cluster confirmed, and says
// whether it did. The caller holds mu.
func (s *Source) bury(w *workv1.ManifestWork, at time.Time) bool {
	log := s.log.With("cluster", w.Namespace, "work", w.Name, "id", w.UID)
	t := v1alpha1.Tombstone{
		ID: string(w.UID), Name: w.Name, Generation: generation(w),
		DeletedAt: metav1.NewTime(at).Rfc3339Copy(), DeleteOption: w.Spec.DeleteOption,
	}
	if w.DeletionTimestamp == nil {
		// The API server counts a deletion as a generation, unless the object is
		// gone at once.
		t.Generation++
	}
	c := s.clusterOf(w.Namespace)
	if _, err := s.bundle(w.Namespace, &tombstone{Tombstone: t}); err != nil {
		log.Warn("work was removed by force and its deletion cannot be published; it stays on the cluster, unclaimed", "err", err)
		return false
	}
	if c.unconfirmed() >= maxUnconfirmed {
		log.Warn("work was removed by force and too many others were too; it stays on the cluster, unclaimed", "remembered", maxUnconfirmed)
		return false
	}
	if !c.add(t) {
		return false
	}
	log.Warn("work was removed by force before its cluster confirmed; publishing its deletion until it does")
	return true
}

// settle remembers a deletion that its cluster confirmed, so that an agent that
// comes back with older data is told again.
func (s *Source) settle(w *workv1.ManifestWork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusterOf(w.Namespace)
	t := v1alpha1.Tombstone{ID: string(w.UID), Name: w.Name, Generation: generation(w), DeleteOption: w.Spec.DeleteOption}
	if w.DeletionTimestamp != nil {
		t.DeletedAt = *w.DeletionTimestamp
	}
	c.add(t)
	if have := c.tombstones[t.ID]; have.ConfirmedAt == nil {
		c.confirm(have)
	}
	s.enqueueLater(w.Namespace)
}

// reportOnTombstone takes the reports on a deletion whose object is gone.
func (s *Source) reportOnTombstone(r codec.Report, gone bool) sources.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[r.Cluster]
	if c == nil {
		return sources.Unknown
	}
	t, ok := c.tombstones[r.ID]
	switch {
	case !ok:
		return sources.Unknown
	case r.Generation < t.Generation || !gone && r.Sequence <= t.sequence:
		return sources.Stale
	case t.ConfirmedAt != nil:
		return sources.Unchanged
	case !gone:
		t.sequence, t.reported, t.status = r.Sequence, r.Generation, r.Hash
		return sources.Accepted
	}
	c.confirm(t)
	s.enqueueLater(r.Cluster)
	return sources.Accepted
}
