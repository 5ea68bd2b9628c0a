package kube

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

// What a cluster's Agent holds is bounded, so that it fits a request of etcd,
// 1.5 MiB, with what the operator asks for and with the names of fields that the
// API server keeps of it. Bytes are those of the JSON.
const (
	// maxConfirmed and confirmedAge bound the confirmed tombstones of a cluster.
	maxConfirmed = 100
	confirmedAge = 30 * 24 * time.Hour
	// maxUnconfirmed and maxUnconfirmedBytes bound the others. One that does not
	// fit is not made.
	maxUnconfirmed      = v1alpha1.MaxTombstones - maxConfirmed
	maxUnconfirmedBytes = 448 << 10
	// maxTombstoneBytes is for both kinds.
	maxTombstoneBytes = 512 << 10
	// maxStatusBytes is for tombstones and unclaimed works.
	maxStatusBytes = 896 << 10
)

// A tombstone is a deleted work without an object.
type tombstone struct {
	v1alpha1.Tombstone
	// What the cluster reports while it deletes; this is not saved, and the
	// cluster is asked again.
	sequence codec.Sequence
	reported int64
	status   string // The hash, "" for that of an empty status.
	size     int    // See sizeOf.
	saved    bool   // The Agent has it.
}

// bundle is what is published of the tombstone.
func (s *Source) bundle(cluster string, t *tombstone) (codec.Bundle, error) {
	return codec.NewBundle(s.id, t.Work(cluster))
}

// errNoRoom says that a cluster has as many unconfirmed deletions as are kept.
var errNoRoom = errors.New("too many deletions wait for the cluster's confirmation")

// room says why an unconfirmed tombstone cannot be kept: errNoRoom if that may
// change. The caller holds mu.
func (c *clusterRecord) room(t v1alpha1.Tombstone) error {
	switch size := sizeOf(t); {
	case size > maxUnconfirmedBytes:
		return fmt.Errorf("its name and delete options take %d bytes, more than %d", size, maxUnconfirmedBytes)
	case c.unconfirmed >= maxUnconfirmed, c.unconfirmedBytes+size > maxUnconfirmedBytes:
		return fmt.Errorf("%w: %d", errNoRoom, c.unconfirmed)
	}
	return nil
}

// add makes a tombstone known that is not. The caller holds mu.
func (c *clusterRecord) add(t v1alpha1.Tombstone) {
	c.put(t)
	c.changes++
}

func (c *clusterRecord) put(t v1alpha1.Tombstone) *tombstone {
	kept := &tombstone{Tombstone: t, size: sizeOf(t)}
	c.tombstones[t.ID] = kept
	if t.ConfirmedAt == nil {
		c.unconfirmed++
		c.unconfirmedBytes += kept.size
	}
	return kept
}

// confirm makes a tombstone a confirmed one. The caller holds mu.
func (c *clusterRecord) confirm(t *tombstone, at metav1.Time) {
	t.ConfirmedAt = &at
	c.unconfirmed--
	c.unconfirmedBytes -= t.size
	c.changes++
}

// giveUp forgets the unconfirmed tombstones. The caller holds mu.
func (c *clusterRecord) giveUp() {
	maps.DeleteFunc(c.tombstones, func(_ string, t *tombstone) bool { return t.ConfirmedAt == nil })
	c.unconfirmed, c.unconfirmedBytes = 0, 0
	c.changes++
}

// merge takes over what another replica, or this one before a restart, saved.
// Confirmed wins: a cache that lags behind says less. The caller holds mu.
func (c *clusterRecord) merge(saved []v1alpha1.Tombstone) {
	for _, t := range saved {
		have, ok := c.tombstones[t.ID]
		switch {
		case !ok:
			have = c.put(t)
			if !t.ByOperator {
				c.deletions.pass(passing{id: t.ID, at: t.DeletedAt.Time, gone: true})
			}
		case have.ConfirmedAt == nil && t.ConfirmedAt != nil:
			c.confirm(have, *t.ConfirmedAt)
		}
		have.saved = true
	}
}

// trim forgets confirmed tombstones that are old or too many and returns what is
// to be saved, by ID. The caller holds mu.
func (c *clusterRecord) trim(now time.Time) []v1alpha1.Tombstone {
	unconfirmed := make([]*tombstone, 0, c.unconfirmed)
	var confirmed []*tombstone
	for _, t := range c.tombstones {
		if t.ConfirmedAt == nil {
			unconfirmed = append(unconfirmed, t)
		} else {
			confirmed = append(confirmed, t)
		}
	}
	// What is saved stays so. More than there is room for there is only if two
	// replicas added some.
	slices.SortFunc(unconfirmed, func(a, b *tombstone) int {
		if a.saved != b.saved {
			if a.saved {
				return -1
			}
			return 1
		}
		return cmp.Or(a.DeletedAt.Compare(b.DeletedAt.Time), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(confirmed, func(a, b *tombstone) int {
		return cmp.Or(b.ConfirmedAt.Compare(a.ConfirmedAt.Time), cmp.Compare(a.ID, b.ID))
	})
	keep, size := make([]v1alpha1.Tombstone, 0, len(unconfirmed)+maxConfirmed), 0
	for _, t := range unconfirmed {
		if len(keep) < maxUnconfirmed && size+t.size <= maxTombstoneBytes {
			size += t.size
			keep = append(keep, t.Tombstone)
		}
	}
	left := maxConfirmed
	for _, t := range confirmed {
		if left == 0 || size+t.size > maxTombstoneBytes || now.Sub(t.ConfirmedAt.Time) > confirmedAge {
			delete(c.tombstones, t.ID)
			continue
		}
		left--
		size += t.size
		keep = append(keep, t.Tombstone)
	}
	slices.SortFunc(keep, func(a, b v1alpha1.Tombstone) int { return cmp.Compare(a.ID, b.ID) })
	return slices.Clip(keep)
}

// sizeOf is about how many bytes a tombstone takes, and not more.
func sizeOf(t v1alpha1.Tombstone) int {
	const rest = 200 // Names of fields, two times, a number and a flag.
	size := rest + sizeOfText(t.ID) + sizeOfText(t.Name)
	if t.DeleteOption != nil {
		text, err := json.Marshal(t.DeleteOption)
		if err != nil {
			return maxStatusBytes
		}
		size += len(text)
	}
	return size
}

// sizeOfUnclaimed is sizeOf for an unclaimed work.
func sizeOfUnclaimed(u v1alpha1.UnclaimedWork) int {
	const rest = 90
	return rest + sizeOfText(u.ID) + sizeOfText(u.Name)
}

// sizeOfText is at least what a text takes in JSON, where some characters take
// six bytes.
func sizeOfText(text string) int {
	n := len(text)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			n += 5
		}
	}
	return n
}

// bury remembers a work that vanished before its cluster confirmed, and says
// whether it did. The caller holds mu.
func (s *Source) bury(w *workv1.ManifestWork, rec *record, at time.Time) bool {
	log := s.log.With("cluster", w.Namespace, "work", w.Name, "id", w.UID)
	t := v1alpha1.Tombstone{
		ID: string(w.UID), Name: w.Name, Generation: generation(w),
		DeletedAt: metav1.NewTime(at).Rfc3339Copy(), DeleteOption: w.Spec.DeleteOption, ByOperator: expected(w, rec),
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
	if _, known := c.tombstones[t.ID]; known {
		return false
	}
	if err := c.room(t); err != nil {
		log.Warn("work was removed by force and its deletion cannot be kept; it stays on the cluster, unclaimed", "err", err)
		return false
	}
	c.add(t)
	log.Warn("work was removed by force before its cluster confirmed; publishing its deletion until it does")
	return true
}

// settle remembers a deletion that its cluster confirmed, so that an agent that
// comes back with older data is told again.
func (s *Source) settle(w *workv1.ManifestWork, rec *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusterOf(w.Namespace)
	now := metav1.Now().Rfc3339Copy()
	t := v1alpha1.Tombstone{
		ID: string(w.UID), Name: w.Name, Generation: generation(w), DeleteOption: w.Spec.DeleteOption,
		ConfirmedAt: &now, ByOperator: expected(w, rec),
	}
	if w.DeletionTimestamp != nil {
		t.DeletedAt = *w.DeletionTimestamp
	}
	if have, ok := c.tombstones[t.ID]; !ok {
		c.add(t)
	} else if have.ConfirmedAt == nil {
		c.confirm(have, now)
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
	c.confirm(t, metav1.Now().Rfc3339Copy())
	s.enqueueLater(r.Cluster)
	return sources.Accepted
}
