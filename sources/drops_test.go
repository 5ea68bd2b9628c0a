package sources_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
)

// noting is a source that notes drops, after some failures.
type noting struct {
	*fakeSource

	failures int
	drops    []string
}

func (s *noting) Dropped(_ context.Context, k sources.Key, reason string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures--; s.failures >= 0 {
		return errors.New("not now")
	}
	if err == nil {
		return errors.New("no reason")
	}
	s.drops = append(s.drops, fmt.Sprintf("%s/%s %s", k.Cluster, k.ID, reason))
	return nil
}

func (s *noting) take() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.drops
	s.drops = nil
	slices.Sort(out)
	return out
}

func TestDropsAreNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &noting{fakeSource: newSource()}, &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		f.ready()
		broken := func(cluster string, spoil func(*event.Event)) {
			e := encode(t, report(t, bundle(cluster, "a", 1), 7), codec.Update)
			spoil(&e)
			if got := f.deliver(t, toSource(cluster), e); got.String() != "rejected" {
				t.Errorf("the event is %s, want rejected", got)
			}
		}
		noSequence := func(e *event.Event) { e.Unset("sequenceid") }
		newer := func(e *event.Event) {
			e.Set(event.Type, "io.open-cluster-management.works.v1.manifestbundles.status.update_request")
		}
		for range 10 {
			broken("c1", noSequence)
		}
		broken("c2", noSequence)
		broken("c1", newer)
		broken("c1", func(e *event.Event) { e.Set("clustername", "c2") })
		broken("c1", func(e *event.Event) { e.Unset("resourceid") }) // Nobody's.
		want := []string{"c1/a foreign_cluster", "c1/a malformed", "c1/a unsupported_version", "c2/a malformed"}
		if diff := cmp.Diff(want, src.take()); diff != "" {
			t.Errorf("noted (-want +got):\n%s", diff)
		}
		for result, want := range map[string]float64{"malformed": 12, "unsupported_version": 1, "foreign_cluster": 1} {
			if got := countEvents(t, d, result); got != want {
				t.Errorf("%v events counted as %s, want %v", got, result, want)
			}
		}
		src.failures = 2
		pass(time.Minute)
		broken("c1", noSequence)
		pass(time.Minute)
		if diff := cmp.Diff([]string{"c1/a malformed"}, src.take()); diff != "" {
			t.Errorf("a minute later, when it fails at first (-want +got):\n%s", diff)
		}
		src.failures = 1000
		broken("c1", noSequence)
		pass(time.Hour)
		src.failures = 0
		pass(time.Hour)
		if got := src.take(); got != nil {
			t.Errorf("noted %v; a note that cannot be made is given up", got)
		}
	})
}

// TestReportsAreCountedByVerdict: what came in is what was taken and what was
// dropped, each with its reason.
func TestReportsAreCountedByVerdict(t *testing.T) {
	for verdict, want := range map[sources.Verdict]string{
		sources.Accepted: "ok", sources.Unordered: "ok", sources.Unchanged: "duplicate", sources.Stale: "stale",
		sources.Foreign: "foreign_cluster", sources.Unknown: "unknown_work", sources.Invalid: "invalid",
	} {
		t.Run(string(verdict), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := &noting{fakeSource: newSource()}, &fakeTransport{}
				src.report = func(codec.Report) (sources.Verdict, error) { return verdict, nil }
				d := run(t, src, f, sources.Options{})
				f.ready()
				f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update))
				synctest.Wait()
				if got := countEvents(t, d, want); got != 1 {
					t.Errorf("%v reports counted as %s, want 1", got, want)
				}
				noted := len(src.take())
				if wantNoted := verdict == sources.Invalid; (noted == 1) != wantNoted {
					t.Errorf("noted %d times; a status that can never be saved is, and nothing else", noted)
				}
			})
		})
	}
}
