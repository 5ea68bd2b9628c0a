package kube

import (
	"log/slog"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// newTestSource is a source that leads, without an API server.
func newTestSource() *Source {
	return &Source{
		id: "hub1", breaker: DefaultBreaker, log: slog.New(slog.DiscardHandler), changed: func(sources.Key) {},
		records: map[string]*record{}, clusters: map[string]*clusterRecord{},
	}
}

func publishedWork(version string) *workv1.ManifestWork {
	return &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
		Namespace: "c1", Name: "web", UID: "11111111-1111-4111-8111-111111111111", ResourceVersion: version,
		Generation: 1, Finalizers: []string{api.WorkFinalizer},
	}}
}

// TestOnlyWitnessedDeletionsCount: a work that is missing was not deleted.
func TestOnlyWitnessedDeletionsCount(t *testing.T) {
	missing := func(w *workv1.ManifestWork) any {
		return toolscache.DeletedFinalStateUnknown{Key: "c1/web", Obj: w}
	}
	going := func(w *workv1.ManifestWork) *workv1.ManifestWork {
		w = w.DeepCopy()
		now := metav1.NewTime(time.Now())
		w.DeletionTimestamp = &now
		return w
	}
	for name, tc := range map[string]struct {
		reason  string
		happens func(s *Source, w *workv1.ManifestWork)
		want    bool
	}{
		"removed by force": {
			"the API server said so",
			func(s *Source, w *workv1.ManifestWork) { s.deleted(w) }, true,
		},
		"missing": {
			"an API server that was restored has no later works",
			func(s *Source, w *workv1.ManifestWork) { s.deleted(missing(w)) }, false,
		},
		"missing, and was being deleted": {
			"somebody deleted it before",
			func(s *Source, w *workv1.ManifestWork) { s.deleted(missing(going(w))) }, true,
		},
		"another in its place": {
			"the cache was filled anew: it is missing",
			func(s *Source, w *workv1.ManifestWork) {
				other := w.DeepCopy()
				other.UID = "22222222-2222-4222-8222-222222222222"
				s.updated(w, other)
			}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := newTestSource(), publishedWork("1")
			s.added(w)
			tc.happens(s, w)
			c := s.clusterOf("c1")
			if _, got := c.tombstones[string(w.UID)]; got != tc.want {
				t.Errorf("%s: there is a tombstone: %t, want %t", tc.reason, got, tc.want)
			}
			if _, ok := s.records[string(w.UID)]; ok || c.deletions.works != len(s.records) {
				t.Errorf("%d works are counted, %d known, it among them: %t", c.deletions.works, len(s.records), ok)
			}
		})
	}
}

// TestAPIServerGoesBack: what this process knew of a version that is no more
// does not hide the one that there is.
func TestAPIServerGoesBack(t *testing.T) {
	s, now, before := newTestSource(), publishedWork("9"), publishedWork("4")
	s.added(now)
	s.wrote(publishedWork("11"))
	if got := s.newest(now).ResourceVersion; got != "11" {
		t.Fatalf("version %s, want what was written", got)
	}
	s.updated(now, before)
	if got := s.newest(before).ResourceVersion; got != "4" {
		t.Errorf("version %s counts, want that of the API server, 4", got)
	}
}
