package sources_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// start runs a dispatcher of src with a session, and returns what it said to
// clusters only if the test asks.
func start(t *testing.T, src *memory.Source, f *fakeTransport, o sources.Options) *sources.Dispatcher {
	t.Helper()
	d := run(t, src, f, o)
	src.Notify(d.Changed)
	f.ready()
	return d
}

func expectTalk(t *testing.T, reason string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", reason, diff)
	}
}

func TestDigestsThatMatchEndTheConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		expectTalk(t, "nothing on either side", a.talk(), "match, 0 unclaimed")
		for i := range 100 {
			a.takes(put(t, src, "c1", fmt.Sprint("w", i)))
		}
		pass(time.Second)
		expectTalk(t, "100 works that the cluster has", a.talk(), "match, 0 unclaimed")
	})
}

func TestDigestsThatDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.pageSize = 2
		for i := range 100 {
			b := put(t, src, "c1", fmt.Sprint("w", i))
			a.takes(b)
			a.reports(b)
		}
		a.syncs()
		// Everything that can differ, and was not heard of.
		newer := put(t, src, "c1", "w1")
		missing := put(t, src, "c1", "new")
		gone := remove(t, src, "c1", "w2")
		never := remove(t, src, "c1", "w3")
		delete(a.holds, never.ID)
		corrupt := a.holds[id("c1", "w4")]
		corrupt.Digest[0]++
		a.holds[corrupt.ID] = corrupt
		unheard := a.holds[id("c1", "w5")]
		unheard.Status = "another"
		a.holds[unheard.ID] = unheard
		want := []string{
			"differs", unheard.ID + " status?", fmt.Sprintf("%s@1", corrupt.ID), fmt.Sprintf("%s@2", newer.ID),
			fmt.Sprintf("%s@1", missing.ID), fmt.Sprintf("%s@2 deleted", gone.ID), fmt.Sprintf("%s@2 deleted", never.ID),
		}
		pass(5 * time.Second)
		got := a.talk()
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), got); diff != "" {
			t.Errorf("exactly what differs is sent (-want +got):\n%s", diff)
		}
		for _, b := range []codec.Bundle{gone, never} {
			a.reports(b)
		}
		a.reports(put(t, src, "c1", "w5"))
		a.talk()
		a.syncs()
	})
}

// TestEmptySourceDeletesNothing: what the source does not know stays where it
// is, is told once, and is matched from then on.
func TestEmptySourceDeletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, f := memory.New(sourceID), &fakeTransport{}
		a := newScripted(t, f, "c1")
		for i := range 20 {
			a.takes(put(t, before, "c1", fmt.Sprint("w", i)))
		}
		src := memory.New(sourceID)
		start(t, src, f, sources.Options{})
		expectTalk(t, "it asks for all", a.talk(), "differs")
		expectTalk(t, "and leaves it", a.talk(), "match, 20 unclaimed")
		pass(5 * time.Second)
		state, ok := src.Agent("c1")
		if !ok || len(state.Unclaimed) != 20 || !state.InSync || !state.Online {
			t.Errorf("roster says %+v, %v; want 20 unclaimed works of a cluster that is online and in sync", state, ok)
		}

		// One of them is put again, another one is deleted by name.
		put(t, src, "c1", "w3")
		expectTalk(t, "what is put as it was is claimed", a.talk(), "match, 19 unclaimed")
		put(t, src, "c1", "w4")
		gone := remove(t, src, "c1", "w4")
		pass(time.Second)
		a.talk()
		a.reports(gone)
		expectTalk(t, "the bucket is told anew", a.talk(), "match, 18 unclaimed")
		pass(2 * time.Minute) // So many changes are written later.
		if state, _ := src.Agent("c1"); len(state.Unclaimed) != 18 {
			t.Errorf("roster says %d unclaimed works, want 18", len(state.Unclaimed))
		}
	})
}

// TestTombstoneIsSentForALateCopy: the source remembers the deletion although
// the cluster confirmed it.
func TestTombstoneIsSentForALateCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		live := put(t, src, "c1", "w")
		gone := remove(t, src, "c1", "w")
		a.reports(gone)
		a.syncs()
		a.takes(live)
		expectTalk(t, "the copy is deleted again", a.talk(), "differs", gone.ID+"@2 deleted")
		expectTalk(t, "while it is on its way out it is excused", a.talk(), "differs")
		expectTalk(t, "and not unclaimed", a.talk(), "match, 0 unclaimed")
		a.reports(gone)
		a.talk()
		a.syncs()
	})
}

// TestClusterAhead: a source restored from a backup rolls nothing back, and is
// in sync with clusters that are ahead of it.
func TestClusterAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		a := newScripted(t, f, "c1")
		a.takes(put(t, src, "c1", "w"))
		a.takes(put(t, src, "c1", "other"))
		backup := src.Snapshot()
		a.takes(put(t, src, "c1", "w"))
		start(t, backup, f, sources.Options{})
		pass(time.Second)
		a.talk()
		expectTalk(t, "the older version is not sent", a.talk(), "match, 0 unclaimed")
		put(t, backup, "c1", "w")
		now := put(t, backup, "c1", "w")
		pass(time.Second)
		a.talk()
		if got := a.holds[now.ID].Generation; got != 3 {
			t.Errorf("the cluster has generation %d, want the source's newest: 3", got)
		}
		a.syncs()
	})
}

// TestDigestsAreAnsweredWithPauses: an agent that sends digests in a loop gets
// an answer per pause and delays nobody.
func TestDigestsAreAnsweredWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTransport{}
		start(t, memory.New(sourceID), f, sources.Options{})
		loud, other := newScripted(t, f, "c1"), newScripted(t, f, "c2")
		for range 100 {
			loud.digest()
		}
		if got := len(loud.heard()); got != 1 {
			t.Errorf("%d answers at once, want 1", got)
		}
		other.digest()
		if got := len(other.heard()); got != 1 {
			t.Errorf("another cluster got %d answers, want 1", got)
		}
		pass(time.Minute)
		if got := len(loud.heard()); got != 1 {
			t.Errorf("%d more answers, want 1: what was said meanwhile is one digest", got)
		}
	})
}

// TestDigestOnAnotherLane: digests are for one source, and a cluster is who the
// broker says it is.
func TestDigestOnAnotherLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTransport{}
		d := start(t, memory.New(sourceID), f, sources.Options{})
		set := digest.NewSet(digest.Key{1})
		m := codec.Digest{Agent: "a", Instance: digest.Key{1}, Spec: set.Root(), Status: set.Root()}
		for _, from := range []brokers.Topic{
			{Lane: brokers.ToAllSources, Cluster: "c1"},
			{Lane: brokers.ToSource, Source: "hub2", Cluster: "c1"},
		} {
			if got := f.deliver(t, from, encode(t, m, codec.Announce)); got.String() != "rejected" {
				t.Errorf("a digest on the lane of %s is %s, want rejected", from, got)
			}
		}
		if got := f.take(); got != nil {
			t.Errorf("answered with %v", got)
		}
		if n := countEvents(t, d, "mismatch"); n != 2 {
			t.Errorf("%v events counted as mismatch, want 2", n)
		}
	})
}

// TestDigestWaitsForTheSource: a source that is not loaded answers nobody.
func TestDigestWaitsForTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		run(t, src, f, sources.Options{})
		f.ready()
		src.fail(sources.ErrNotLoaded)
		a := newScripted(t, f, "c1")
		a.digest()
		pass(time.Minute)
		if got := a.heard(); len(got) > 0 {
			t.Errorf("it was told %v by a source that is not loaded", got)
		}
		src.fail(nil)
		pass(2 * time.Minute)
		if got := a.heard(); len(got) == 0 {
			t.Error("no answer once the source is loaded")
		}
	})
}

// stuck is a source that never comes to an end with one cluster, and panics
// over another.
type stuck struct{ *memory.Source }

func (s stuck) Held(ctx context.Context, cluster string) ([]sources.Held, error) {
	switch {
	case strings.HasPrefix(cluster, "slow"):
		<-ctx.Done()
		return nil, ctx.Err()
	case cluster == "panics":
		panic("held")
	}
	return s.Source.Held(ctx, cluster)
}

// TestSlowClustersDoNotTakeAllWorkers: their turns end.
func TestSlowClustersDoNotTakeAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTransport{}
		run(t, stuck{memory.New(sourceID)}, f, sources.Options{})
		f.ready()
		for i := range 16 {
			newScripted(t, f, fmt.Sprint("slow", i)).digest()
		}
		a := newScripted(t, f, "c1")
		a.digest()
		pass(2 * time.Minute)
		if got := a.heard(); len(got) == 0 {
			t.Error("no answer within two minutes: other clusters' lists take all workers")
		}
	})
}

func TestDigestsOfOtherClustersAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTransport{}
		run(t, stuck{memory.New(sourceID)}, f, sources.Options{})
		f.ready()
		for _, cluster := range []string{"slow", "panics"} {
			a := newScripted(t, f, cluster)
			for range 20 {
				a.digest()
				pass(3 * time.Second)
			}
		}
		newScripted(t, f, "c1").syncs()
	})
}

// TestStatusAloneDiffers: the cluster has what it should, and is asked for the
// one status that was lost.
func TestStatusAloneDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		for i := range 10 {
			b := put(t, src, "c1", fmt.Sprint("w", i))
			a.takes(b)
			a.reports(b)
		}
		lost := a.holds[id("c1", "w3")]
		lost.Status = "another"
		a.holds[lost.ID] = lost
		pass(time.Second)
		expectTalk(t, "one of ten", a.talk(), "differs", lost.ID+" status?")
		if state, _ := src.Agent("c1"); !state.InSync {
			t.Error("not in sync for want of a report")
		}
		b, _, _ := src.Bundle(t.Context(), src.Key("c1", "w3"))
		a.reports(b)
		a.syncs()
	})
}

// TestAnswersTellWhatWasTaken: an agent that lost its count learns it from the
// answers to its digests, whether or not anything differs.
func TestAnswersTellWhatWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a, other := newScripted(t, f, "c1"), newScripted(t, f, "c2")
		answer := func(a *scripted) (taken codec.Sequence, kind string) {
			a.heard()
			a.digest()
			pass(3 * time.Second)
			for _, m := range a.heard() {
				switch m := m.(type) {
				case codec.Match:
					return m.Taken, "match"
				case codec.Buckets:
					return m.Taken, "buckets"
				}
			}
			return 0, "nothing"
		}
		a.sequence = 1000
		for i := range 3 {
			b := put(t, src, "c1", fmt.Sprint("w", i))
			a.takes(b)
			a.reports(b)
		}
		pass(time.Second)
		if taken, kind := answer(a); kind != "match" || taken != a.sequence {
			t.Errorf("%s, taken %d, want a match that tells of %d", kind, taken, a.sequence)
		}
		// It comes back without its count, and what it says is dropped.
		last := a.sequence
		a.sequence = 1
		b := put(t, src, "c1", "w0")
		a.takes(b)
		a.reports(b)
		pass(time.Second)
		if taken, kind := answer(a); kind != "buckets" || taken != last {
			t.Errorf("%s, taken %d, want buckets that tell of %d", kind, taken, last)
		}
		if taken, kind := answer(other); kind != "match" || taken != 0 {
			t.Errorf("another cluster's %s tells of %d, want a match that tells of nothing", kind, taken)
		}
	})
}

// TestEntriesAreTakenWhenAskedFor: whoever sends them all the time has nothing
// published for it.
func TestEntriesAreTakenWhenAskedFor(t *testing.T) {
	for name, asked := range map[string]bool{"never asked": false, "asked": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := memory.New(sourceID), &fakeTransport{}
				d := start(t, src, f, sources.Options{})
				a := newScripted(t, f, "c1")
				a.syncs()
				for i := range 100 {
					put(t, src, "c1", fmt.Sprint("w", i))
				}
				pass(time.Second)
				if asked {
					a.digest()
				}
				f.take()
				all := make([]uint8, digest.Buckets)
				for i := range all {
					all[i] = uint8(i)
				}
				for range 50 {
					a.says(codec.Entries{Agent: "c1-agent", Instance: a.instance, Buckets: all})
					synctest.Wait()
				}
				pass(time.Second)
				n, most, dropped := len(f.take()), 0, 50
				if asked {
					most, dropped = 100, 49
				}
				if n != most {
					t.Errorf("50 small events had the hub publish %d events, want %d", n, most)
				}
				if got := countEvents(t, d, "unexpected"); int(got) != dropped {
					t.Errorf("%v events counted as unexpected, want %d", got, dropped)
				}
			})
		})
	}
}

// TestStatusThatCannotBeSaved: the source can never save it, the cluster is not
// asked for it again, and is in sync.
func TestStatusThatCannotBeSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(bundle("c1", "a", 1)), &fakeTransport{}
		content, err := bundle("c1", "a", 1).Digest()
		if err != nil {
			t.Fatal(err)
		}
		src.held["c1"] = []sources.Held{{ID: "a", Generation: 1, Digest: content, StatusHash: "ab12"}}
		src.report = func(codec.Report) (sources.Verdict, error) { return sources.Invalid, nil }
		run(t, src, f, sources.Options{})
		f.ready()
		a := newScripted(t, f, "c1")
		a.takes(bundle("c1", "a", 1))
		a.reports(bundle("c1", "a", 1))
		expectTalk(t, "before it is known to know digests", a.talk(), "differs", "a status?")
		a.reports(bundle("c1", "a", 1))
		expectTalk(t, "no status can come of asking", a.talk(), "match, 0 unclaimed")
		// Another status; its report got lost.
		e := a.holds["a"]
		e.Status = "cd34"
		a.holds["a"] = e
		expectTalk(t, "another one is asked for", a.talk(), "differs", "a status?")
		src.mu.Lock()
		src.held["c1"][0].StatusHash = "cd34"
		src.report = nil
		src.mu.Unlock()
		a.reports(bundle("c1", "a", 1))
		e.Status = "cd34"
		a.holds["a"] = e
		expectTalk(t, "and saved", a.talk(), "match, 0 unclaimed")
	})
}
