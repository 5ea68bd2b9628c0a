package sources_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// breaker is a source that withholds all deletions, and hears what cannot be
// sent.
type breaker struct {
	*picky

	heardMu sync.Mutex
	heard   []string
}

func (s *breaker) Refused(_ context.Context, k sources.Key, generation int64, reason error) error {
	s.heardMu.Lock()
	defer s.heardMu.Unlock()
	s.heard = append(s.heard, fmt.Sprintf("%s@%d %v", k.ID, generation, reason))
	return nil
}

func (s *breaker) take() []string {
	synctest.Wait()
	s.heardMu.Lock()
	defer s.heardMu.Unlock()
	out := s.heard
	s.heard = nil
	return out
}

// TestWithheldIsToldLikeARefusal: once, whatever has it tried again, and the
// confirmation needs no other version of the work.
func TestWithheldIsToldLikeARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &breaker{picky: &picky{Source: memory.New(sourceID)}}, &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		src.Notify(d.Changed)
		f.ready()
		b := put(t, src.Source, "c1", "w")
		synctest.Wait()
		src.take()
		f.take()
		src.set(b.ID, sources.ErrWithheld)
		remove(t, src.Source, "c1", "w")
		pass(time.Hour) // A cluster that knows no digests is compared every ten minutes.
		want := []string{fmt.Sprintf("%s@2 %v", b.ID, sources.ErrWithheld)}
		if diff := cmp.Diff(want, src.take()); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		if got := f.takeBundles(); len(got) > 0 {
			t.Errorf("published %v, want nothing", got)
		}
		src.set("", nil)
		d.Changed(sources.Key{Cluster: "c1", ID: b.ID})
		if got := f.takeBundles(); !slices.Equal(got, []string{"c1/" + b.ID + "@2 delete_request"}) {
			t.Errorf("once confirmed, published %v, want the deletion", got)
		}
		if got := src.take(); !slices.Equal(got, []string{b.ID + "@2 <nil>"}) {
			t.Errorf("told %v, want that it was sent", got)
		}
	})
}
