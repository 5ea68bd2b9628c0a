package sources_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
)

func TestChangedIsPublished(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		work   codec.Bundle
		want   string
	}{
		"first":       {reason: "a first generation creates", work: bundle("c1", "a", 1), want: "c1/a@1 create_request"},
		"later":       {reason: "a later one updates", work: bundle("c1", "a", 2), want: "c1/a@2 update_request"},
		"unversioned": {reason: "without versions nobody knows", work: bundle("c1", "a", 0), want: "c1/a@0 update_request"},
		"deleting":    {reason: "a deletion is sent as one", work: deletion("c1", "a", 3), want: "c1/a@3 delete_request"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				d := run(t, src, f, sources.Options{})
				f.ready()
				d.Changed(src.put(tc.work))
				if diff := cmp.Diff([]string{tc.want}, f.take()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
				}
				want := brokers.Topic{Lane: brokers.ToCluster, Source: sourceID, Cluster: "c1", Key: "a"}
				if diff := cmp.Diff(want, f.topics[0]); diff != "" {
					t.Errorf("topic (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWorkThatIsGoneIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		f.ready()
		d.Changed(sources.Key{Cluster: "c1", ID: "gone"})
		if got := f.take(); got != nil {
			t.Errorf("published %v for a work that the source does not hold", got)
		}
	})
}

func TestChangesCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		var k sources.Key
		for g := range int64(100) {
			k = src.put(bundle("c1", "a", g+1))
			d.Changed(k)
		}
		synctest.Wait()
		if got := f.take(); got != nil {
			t.Fatalf("published %v before there was a session", got)
		}
		f.sub.Ready(brokers.Session{})
		pass(time.Second)
		got := f.takeBundles()
		// The first comparison finds the work unreported, which may be a second event.
		if len(got) > 2 {
			t.Errorf("%d events of a hundred changes before the first session", len(got))
		}
		if diff := cmp.Diff([]string{"c1/a@100 update_request"}, slices.Compact(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestOneClusterDelaysNoOther has a single worker and a cluster with a thousand
// works: one work of another cluster waits for one of them.
func TestOneClusterDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		release := make(chan struct{})
		var sent []string
		f.publish = func(_ brokers.Topic, m codec.Message) error {
			if b, ok := m.(codec.Bundle); ok {
				<-release
				sent = append(sent, b.Cluster)
			}
			return nil
		}
		d := run(t, src, f, sources.Options{Workers: 1})
		f.ready()
		for i := range 1000 {
			d.Changed(src.put(bundle("crowded", fmt.Sprint("w", i), 1)))
		}
		synctest.Wait()
		d.Changed(src.put(bundle("quiet", "a", 1)))
		for range 3 {
			release <- struct{}{}
			synctest.Wait()
		}
		if diff := cmp.Diff([]string{"crowded", "crowded", "quiet"}, sent); diff != "" {
			// The first was in the worker's hands, the second had its turn.
			t.Errorf("clusters in the order served (-want +got):\n%s", diff)
		}
		close(release)
	})
}

func TestUnavailableWaitsForASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		var away atomic.Bool
		var tries atomic.Int64
		f.publish = func(_ brokers.Topic, m codec.Message) error {
			if _, ok := m.(codec.Bundle); ok {
				tries.Add(1)
			}
			if away.Load() {
				return fmt.Errorf("publish: %w", brokers.ErrUnavailable)
			}
			return nil
		}
		d := run(t, src, f, sources.Options{Workers: 4})
		f.ready()
		away.Store(true)
		f.sub.Down(errors.New("connection reset"))
		if d.Ready() == nil {
			t.Error("Ready is nil without a session")
		}
		const works = 50
		for i := range works {
			d.Changed(src.put(bundle("c1", fmt.Sprint("w", i), 2)))
		}
		synctest.Wait()
		if got := tries.Load(); got > 4 {
			t.Errorf("%d attempts while the broker is away, want one per worker at most", got)
		}
		away.Store(false)
		f.sub.Ready(brokers.Session{Resumed: true})
		pass(time.Second)
		if got := len(f.takeBundles()); got < works {
			t.Errorf("%d of %d works published after the session was back", got, works)
		}
		if err := d.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
	})
}

// TestUnavailableIsProbed covers a broker that takes events again although the
// subscription never went down, so that nobody announces a session.
func TestUnavailableIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		var away atomic.Bool
		f.publish = func(brokers.Topic, codec.Message) error {
			if away.Load() {
				return brokers.ErrUnavailable
			}
			return nil
		}
		d := run(t, src, f, sources.Options{})
		f.ready()
		away.Store(true)
		d.Changed(src.put(bundle("c1", "a", 2)))
		synctest.Wait()
		away.Store(false)
		pass(time.Minute)
		if diff := cmp.Diff([]string{"c1/a@2 update_request"}, f.takeBundles()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRefusedWorks(t *testing.T) {
	for name, tc := range map[string]struct {
		reason     string
		publishErr error
		bundleErr  error
		want       string
	}{
		"too large for the broker": {
			reason: "a limit does not change by trying", publishErr: brokers.ErrTooLarge, want: "c1/a@2 too large",
		},
		"no such topic": {
			reason: "a name the broker cannot spell stays one", publishErr: brokers.ErrInvalidTopic, want: "c1/a@2 invalid",
		},
		"too much metadata": {
			reason: "the source cannot make a bundle of it", bundleErr: codec.ErrMetadataTooLarge, want: "c1/a@2 too large",
		},
		"not encodable": {
			reason: "the wire cannot hold it", bundleErr: codec.ErrGenerationRange, want: "c1/a@2 invalid",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				bad := func(generation int64) bool { return generation == 2 }
				f.publish = func(_ brokers.Topic, m codec.Message) error {
					if b, ok := m.(codec.Bundle); ok && tc.publishErr != nil && bad(b.Generation) {
						return fmt.Errorf("publish: %w", tc.publishErr)
					}
					return nil
				}
				src.bundleErr = func(k sources.Key) error {
					if tc.bundleErr != nil && bad(src.works[k].Generation) {
						return fmt.Errorf("describe: %w", tc.bundleErr)
					}
					return nil
				}
				d := run(t, src, f, sources.Options{CompareInterval: time.Minute})
				f.ready()
				k := src.put(bundle("c1", "a", 2))
				d.Changed(k)
				synctest.Wait()
				tried := src.bundles
				pass(10 * time.Minute)
				if src.bundles != tried {
					t.Errorf("%s: tried %d times more without a newer generation", tc.reason, src.bundles-tried)
				}
				d.Changed(src.put(bundle("c1", "a", 3)))
				synctest.Wait()
				if diff := cmp.Diff([]string{tc.want, "c1/a@3 sent"}, src.heard()[:2]); diff != "" {
					t.Errorf("%s: what the source heard (-want +got):\n%s", tc.reason, diff)
				}
			})
		})
	}
}

// TestRefusedIsTriedInANewSession: the operator may have raised the broker's
// limit.
func TestRefusedIsTriedInANewSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(bundle("c1", "a", 2)), &fakeTransport{}
		var roomy atomic.Bool
		f.publish = func(_ brokers.Topic, m codec.Message) error {
			if _, ok := m.(codec.Bundle); ok && !roomy.Load() {
				return brokers.ErrTooLarge
			}
			return nil
		}
		run(t, src, f, sources.Options{})
		f.ready()
		pass(time.Minute)
		roomy.Store(true)
		f.ready()
		pass(time.Minute)
		if diff := cmp.Diff([]string{"c1/a@2 too large", "c1/a@2 sent"}, src.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// forgetful is a source that cannot note what became of its works.
type forgetful struct{ *fakeSource }

func (s forgetful) Refused(ctx context.Context, k sources.Key, generation int64, reason error) error {
	_ = s.fakeSource.Refused(ctx, k, generation, reason)
	return errors.New("status is forbidden")
}

// TestOnlyTheNoteIsTriedAgain when a source cannot note what became of a work:
// the work is not sent or refused again.
func TestOnlyTheNoteIsTriedAgain(t *testing.T) {
	for name, failure := range map[string]error{"sent": nil, "too large": brokers.ErrTooLarge} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := forgetful{newSource(bundle("c1", "a", 1))}, &fakeTransport{}
				src.held["c1"] = []sources.Held{{ID: "a", Generation: 1, Reported: 1}}
				var tries atomic.Int64
				f.publish = func(_ brokers.Topic, m codec.Message) error {
					if _, ok := m.(codec.Bundle); ok {
						tries.Add(1)
						return failure
					}
					return nil
				}
				d := run(t, src, f, sources.Options{})
				f.ready()
				d.Changed(sources.Key{Cluster: "c1", ID: "a"})
				pass(10 * time.Minute)
				if n := tries.Load(); n != 1 {
					t.Errorf("one unchanged work was published %d times", n)
				}
				if n := len(src.heard()); n < 5 || n > 40 {
					t.Errorf("the source was told %d times in 10 minutes, want a growing pause", n)
				}
			})
		})
	}
}

// TestBrokerGoesOnRefusing: the source hears of it once, and of the end of it.
func TestBrokerGoesOnRefusing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		var tries atomic.Int64
		f.publish = func(_ brokers.Topic, m codec.Message) error {
			if _, ok := m.(codec.Bundle); !ok {
				return nil
			}
			if n := tries.Add(1); n <= 10 {
				return fmt.Errorf("publish %d: %w", n, brokers.ErrRefused)
			}
			return nil
		}
		d := run(t, src, f, sources.Options{CompareInterval: time.Hour})
		f.ready()
		d.Changed(src.put(bundle("c1", "a", 2)))
		for tries.Load() < 2 {
			pass(100 * time.Millisecond)
		}
		if heard := src.heard(); heard != nil {
			t.Errorf("after two tries the source heard %v: a permission may be on its way", heard)
		}
		pass(10 * time.Minute)
		if diff := cmp.Diff([]string{"c1/a@2 refused", "c1/a@2 sent"}, src.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestOtherErrorsAreRetried(t *testing.T) {
	for name, failure := range map[string]error{
		"broker says no":     brokers.ErrRefused,
		"something else":     errors.New("something else"),
		"source is away":     sources.ErrNotLoaded,
		"source has trouble": errors.New("conflict"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				var failures atomic.Int64
				failures.Store(5)
				fail := func() error {
					if failures.Add(-1) >= 0 {
						return failure
					}
					return nil
				}
				if errors.Is(failure, sources.ErrNotLoaded) || name == "source has trouble" {
					src.bundleErr = func(sources.Key) error { return fail() }
				} else {
					f.publish = func(_ brokers.Topic, m codec.Message) error {
						if _, ok := m.(codec.Bundle); ok {
							return fail()
						}
						return nil
					}
				}
				d := run(t, src, f, sources.Options{})
				f.ready()
				d.Changed(src.put(bundle("c1", "a", 2)))
				pass(5 * time.Minute)
				if diff := cmp.Diff([]string{"c1/a@2 update_request"}, f.takeBundles()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}
