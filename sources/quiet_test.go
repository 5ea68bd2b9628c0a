package sources_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

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
