package sources_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// hellos counts what asks the agent for its digest.
func (a *scripted) hellos() int {
	n := 0
	for _, m := range a.heard() {
		if isHello(m) {
			n++
		}
	}
	return n
}

// TestLostWorkIsFoundOut: the broker took the work and lost it. The cluster is
// asked for its digest soon, and later each time.
func TestLostWorkIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{CompareInterval: 24 * time.Hour})
		a := newScripted(t, f, "c1")
		a.syncs()
		b := put(t, src, "c1", "w") // Never arrives.
		var at []time.Duration
		begin := time.Now()
		for range 3 * 60 {
			pass(10 * time.Second)
			if a.hellos() > 0 {
				at = append(at, time.Since(begin).Round(10*time.Second))
			}
			a.beats(true)
		}
		if len(at) < 4 || len(at) > 8 || at[0] > 20*time.Second || at[len(at)-1]-at[len(at)-2] < at[1]-at[0] {
			t.Errorf("asked after %v; want soon at first, and then with growing pauses", at)
		}
		expectTalk(t, "and found out", a.talk(), "differs", b.ID+"@1")
		a.syncs()
		pass(time.Minute)
		a.heard()
		for range 60 {
			pass(10 * time.Second)
			a.beats(true)
		}
		if n := a.hellos(); n > 1 {
			t.Errorf("asked %d times although it has everything", n)
		}
	})
}

// TestReportedIsProven: nobody is asked for what was reported on.
func TestReportedIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{CompareInterval: 24 * time.Hour})
		a := newScripted(t, f, "c1")
		a.syncs()
		for range 60 {
			b := put(t, src, "c1", "w")
			a.takes(b)
			pass(time.Second)
			a.reports(b)
			pass(30 * time.Second)
		}
		if n := a.hellos(); n > 0 {
			t.Errorf("asked %d times, want never", n)
		}
	})
}

// TestSteadyChangesAreLookedAt: a cluster that is published to without a pause
// is looked at all the same.
func TestSteadyChangesAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		asked := 0
		for range 90 {
			put(t, src, "c1", "w")
			pass(time.Second)
			asked += a.hellos()
		}
		if asked != 1 {
			t.Errorf("asked %d times within 90 seconds of changes, want once after a minute", asked)
		}
	})
}

// TestUnorderedReportOfAKnownAgent: it is not sent a list, but asked for its
// digest.
func TestUnorderedReportOfAKnownAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(bundle("c1", "a", 1)), &fakeTransport{}
		run(t, src, f, sources.Options{})
		f.ready()
		pass(time.Second)
		a := newScripted(t, f, "c1")
		a.takes(bundle("c1", "a", 1))
		a.digest()
		a.heard()
		src.report = func(codec.Report) (sources.Verdict, error) { return sources.Unordered, nil }
		a.reports(bundle("c1", "a", 1))
		pass(30 * time.Second)
		got := a.heard()
		if !slices.ContainsFunc(got, isHello) {
			t.Errorf("told %v, want hello", got)
		}
		for _, m := range got {
			if _, ok := m.(codec.StatusResync); ok {
				t.Error("asked for statuses with a list of all works")
			}
		}
	})
}

// lister is a source that does something once while it lists works.
type lister struct {
	*memory.Source

	mu    sync.Mutex
	after func()
}

func (s *lister) Held(ctx context.Context, cluster string) ([]sources.Held, error) {
	held, err := s.Source.Held(ctx, cluster)
	s.mu.Lock()
	after := s.after
	s.after = nil
	s.mu.Unlock()
	if after != nil {
		after()
	}
	return held, err
}

// TestPublishedWhileItIsLookedAt: a work is published and lost while an earlier
// one is found to be there.
func TestPublishedWhileItIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &lister{Source: memory.New(sourceID)}, &fakeTransport{}
		d := run(t, src, f, sources.Options{CompareInterval: 24 * time.Hour})
		src.Notify(d.Changed)
		f.ready()
		a := newScripted(t, f, "c1")
		a.syncs()
		pass(time.Minute)
		b := put(t, src.Source, "c1", "w0")
		synctest.Wait()
		a.takes(b)
		a.reports(b)
		a.heard()
		src.mu.Lock()
		src.after = func() {
			put(t, src.Source, "c1", "w1")
			<-time.After(100 * time.Millisecond)
		}
		src.mu.Unlock()
		hellos := 0
		for range 60 {
			pass(10 * time.Second)
			a.beats(true)
			hellos += a.hellos()
		}
		if hellos == 0 {
			t.Error("nobody looked after a lost work in ten minutes")
		}
	})
}

// TestUnorderedReportsAreAskedForWithPauses, as after a restart of the source.
func TestUnorderedReportsAreAskedForWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		src.report = func(codec.Report) (sources.Verdict, error) { return sources.Unordered, nil }
		run(t, src, f, sources.Options{})
		f.ready()
		a := newScripted(t, f, "c1")
		a.digest()
		pass(time.Minute)
		a.heard()
		for i := range 200 {
			f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", fmt.Sprint("w", i), 1), codec.Sequence(i+1)), codec.Update))
			pass(5 * time.Millisecond)
		}
		pass(3 * time.Second)
		if n := a.hellos(); n < 1 || n > 3 {
			t.Errorf("200 reports in a second had the hub ask the cluster for its digest %d times, want 1 to 3", n)
		}
	})
}

// TestSpreadIsLeftToTheClusters: all were asked with a spread, and what happens
// meanwhile is no reason to ask one of them before it is over.
func TestSpreadIsLeftToTheClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		pass(time.Minute)
		f.sub.Ready(brokers.Session{})
		a.heard()
		a.beats(false)
		a.beats(true)
		put(t, src, "c1", "w")
		pass(25 * time.Second)
		if n := a.hellos(); n > 0 {
			t.Errorf("asked %d times, want that it is given the time that all were given", n)
		}
		pass(30 * time.Second)
		if n := a.hellos(); n == 0 {
			t.Error("not asked although it did not answer")
		}
	})
}
