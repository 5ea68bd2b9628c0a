package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// A Breaker says how many of a cluster's works may be deleted at once, which is
// within ten minutes of each other: Share of them (0 to 1), or Works, whichever
// is more. Deletions beyond that are withheld, each until its work has
// api.ConfirmDeletionAnnotation. With a Share of 1 nothing is withheld.
type Breaker struct {
	Share float64
	Works int
}

// DefaultBreaker is that of a Source that is not given one.
var DefaultBreaker = Breaker{Share: 0.2, Works: 10}

func (b Breaker) disabled() bool { return b.Share >= 1 }

// limit is how many works of so many may be deleted at once.
func (b Breaker) limit(works int) int { return max(b.Works, int(b.Share*float64(works))) }

func (b Breaker) String() string {
	return fmt.Sprintf("more than %d works and %.0f%% of the cluster's were deleted within %s", b.Works, b.Share*100, step)
}

// clockSkew is how much the clock of who deletes a finished work may be ahead of
// the API server's.
const clockSkew = time.Minute

// step is how far apart two deletions are that do not count together.
const step = 10 * time.Minute

// A decision is what the breaker made of a work.
type decision int

const (
	undeleted decision = iota // Not deleted, or it was never published.
	undecided                 // Deleted; the breaker was not asked yet.
	passed
	withheld
)

// deletions is what the breaker knows of one cluster. Decisions are made in the
// order of the deletions as far as they are known, and stay: a deletion that was
// let pass may have been sent, and one that was withheld waits for a person.
type deletions struct {
	works     int // Objects in the cache.
	undecided map[string]time.Time
	withheld  map[string]struct{}
	// passed is sorted by time and reaches back two steps from the latest.
	// Confirmed deletions stay in it, so that a cluster that confirms fast is not
	// emptied one by one.
	passed []passing
	gone   int // How many of passed have no object any more.
	// expired are finished works that are deleted because their time to live is
	// over. They pass, and count neither as deletions nor among the works of which a
	// share may be deleted.
	expired map[string]struct{}
}

// A passing is a deletion that was let pass.
type passing struct {
	id   string
	at   time.Time
	gone bool
}

// enlist takes note of a deletion.
func (d *deletions) enlist(id string, at time.Time) {
	if d.undecided == nil {
		d.undecided = map[string]time.Time{}
	}
	d.undecided[id] = at
}

// hold withholds a deletion.
func (d *deletions) hold(id string) {
	if d.withheld == nil {
		d.withheld = map[string]struct{}{}
	}
	d.withheld[id] = struct{}{}
}

// expire takes note of the deletion of a finished work.
func (d *deletions) expire(id string) {
	if d.expired == nil {
		d.expired = map[string]struct{}{}
	}
	d.expired[id] = struct{}{}
}

// pass counts a deletion that is let pass, once.
func (d *deletions) pass(p passing) {
	if slices.ContainsFunc(d.passed, func(other passing) bool { return other.id == p.id }) {
		return
	}
	i, _ := slices.BinarySearchFunc(d.passed, p.at, func(e passing, at time.Time) int { return e.at.Compare(at) })
	d.passed = slices.Insert(d.passed, i, p)
	if p.gone {
		d.gone++
	}
	latest := d.passed[len(d.passed)-1].at
	old, _ := slices.BinarySearchFunc(d.passed, latest.Add(-2*step), func(e passing, at time.Time) int { return e.at.Compare(at) })
	for _, e := range d.passed[:old] {
		if e.gone {
			d.gone--
		}
	}
	d.passed = slices.Delete(d.passed, 0, old)
}

// left takes note that a deleted work has no object any more.
func (d *deletions) left(id string) {
	delete(d.undecided, id)
	delete(d.withheld, id)
	delete(d.expired, id)
	for i := range d.passed {
		if d.passed[i].id == id && !d.passed[i].gone {
			d.passed[i].gone = true
			d.gone++
		}
	}
}

// around counts the deletions that were let pass within a step of a time.
func (d *deletions) around(at time.Time) int {
	from, _ := slices.BinarySearchFunc(d.passed, at.Add(-step), func(e passing, at time.Time) int { return cmp.Or(e.at.Compare(at), -1) })
	to, _ := slices.BinarySearchFunc(d.passed, at.Add(step), func(e passing, at time.Time) int { return e.at.Compare(at) })
	return to - from
}

// decide empties undecided and returns what became of each.
func (d *deletions) decide(b Breaker) map[string]decision {
	if len(d.undecided) == 0 {
		return nil
	}
	ids := make([]string, 0, len(d.undecided))
	for id := range d.undecided {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y string) int {
		return cmp.Or(d.undecided[x].Compare(d.undecided[y]), cmp.Compare(x, y))
	})
	out := make(map[string]decision, len(ids))
	for _, id := range ids {
		at := d.undecided[id]
		if d.around(at) < b.limit(d.works-len(d.expired)+d.gone) {
			d.pass(passing{id: id, at: at})
			out[id] = passed
		} else {
			out[id] = withheld
		}
	}
	clear(d.undecided)
	return out
}

// classify brings the decision on a work up to its object. The caller holds mu.
func (s *Source) classify(w *workv1.ManifestWork, rec *record) {
	if w.DeletionTimestamp == nil || rec.confirmed || !rec.managed && !hasFinalizer(w) {
		return
	}
	id, d := string(w.UID), &s.clusterOf(w.Namespace).deletions
	switch {
	case s.breaker.disabled() || confirmedByOperator(w):
		delete(d.undecided, id)
		delete(d.withheld, id)
		rec.decision = passed
	case rec.decision != undeleted:
	case expired(w):
		rec.decision, rec.expired = passed, true
		d.expire(id)
	case heldBack(w):
		rec.decision = withheld
		d.hold(id)
	default:
		rec.decision = undecided
		d.enlist(id, w.DeletionTimestamp.Time)
	}
}

// judge decides on all deletions of a cluster that are not decided. The caller
// holds mu.
func (s *Source) judge(d *deletions) {
	for id, f := range d.decide(s.breaker) {
		if rec := s.records[id]; rec != nil {
			rec.decision = f
		}
		if f == withheld {
			d.hold(id)
		}
	}
}

// tellWithheld has the breaker decide on the deletions of a cluster, and the works
// say so whose deletion is withheld. The dispatcher asks for a work only when it
// would send it, which it does not while the cluster is offline.
func (s *Source) tellWithheld(ctx context.Context, cluster string) error {
	s.mu.Lock()
	c := s.clusters[cluster]
	if c == nil {
		s.mu.Unlock()
		return nil
	}
	s.judge(&c.deletions)
	ids := slices.Sorted(maps.Keys(c.deletions.withheld))
	s.mu.Unlock()
	for _, id := range ids {
		w, ok, err := s.find(ctx, id)
		if err != nil {
			return err
		}
		if !ok || heldBack(w) {
			continue
		}
		if err := s.Refused(ctx, key(w), generation(w), s.errWithheld()); err != nil {
			return err
		}
	}
	return nil
}

// withholds says whether the deletion of a work waits for a confirmation.
func (s *Source) withholds(w *workv1.ManifestWork) bool {
	if w.DeletionTimestamp == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.records[string(w.UID)]
	if rec == nil {
		// Its object is going: what is known of it says whether it may go.
		return !s.breaker.disabled() && heldBack(w) && !confirmedByOperator(w)
	}
	s.classify(w, rec)
	if rec.decision == undecided {
		s.judge(&s.clusterOf(w.Namespace).deletions)
	}
	return rec.decision == withheld
}

// errWithheld is why a deletion is not sent. The text is the same for all works
// and at all times, so that a restart changes no condition.
func (s *Source) errWithheld() error {
	return fmt.Errorf("%w: %s", sources.ErrWithheld, s.breaker)
}

// confirmedByOperator says that the deletion of the work is meant.
func confirmedByOperator(w *workv1.ManifestWork) bool {
	return w.Annotations[api.ConfirmDeletionAnnotation] == "true"
}

// expired says that a work was deleted after its time to live, by whomever: it was
// to go, so nobody has to confirm it.
func expired(w *workv1.ManifestWork) bool {
	at, ok := api.Expiry(w)
	return ok && w.DeletionTimestamp != nil && !w.DeletionTimestamp.Add(clockSkew).Before(at)
}

// expected says of a deletion that it does not count for the others.
func expected(w *workv1.ManifestWork, rec *record) bool { return confirmedByOperator(w) || rec.expired }

// heldBack says that the work has the condition of a withheld deletion, which
// keeps the decision over restarts.
func heldBack(w *workv1.ManifestWork) bool {
	c := meta.FindStatusCondition(w.Status.Conditions, api.ConditionDispatched)
	return c != nil && c.Reason == api.ReasonDeletionWithheld
}
