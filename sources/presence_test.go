package sources_test

import (
	"errors"
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

// isOnline is what the roster says of a cluster.
func isOnline(t *testing.T, src *memory.Source, cluster string) bool {
	t.Helper()
	pass(2 * time.Second) // The roster hears of it a little later.
	state, ok := src.Agent(cluster)
	if !ok {
		t.Fatalf("the roster knows nothing of %s", cluster)
	}
	return state.Online
}

func TestOfflineClustersGetNothing(t *testing.T) {
	for name, leave := range map[string]func(*scripted){
		"goodbye":  func(a *scripted) { a.beats(false) },
		"silence":  func(*scripted) { pass(3 * time.Minute) },
		"the hint": func(a *scripted) { a.f.sub.Gone(a.cluster) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := memory.New(sourceID), &fakeTransport{}
				start(t, src, f, sources.Options{})
				a := newScripted(t, f, "c1")
				for i := range 50 {
					a.takes(put(t, src, "c1", fmt.Sprint("w", i)))
				}
				a.syncs()
				leave(a)
				if isOnline(t, src, "c1") {
					t.Fatal("online")
				}
				a.heard()
				for i := range 5 {
					put(t, src, "c1", fmt.Sprint("w", i))
				}
				gone := remove(t, src, "c1", "w7")
				f.sub.Ready(brokers.Session{})
				pass(24 * time.Hour)
				if got := a.heard(); len(got) > 0 {
					t.Errorf("%d events were sent to it, want none: the first is %v", len(got), got[0])
				}

				// It returns, and gets what changed.
				said := a.talk()
				if len(said) != 7 || !slices.Contains(said, "differs") || !slices.Contains(said, gone.ID+"@2 deleted") {
					t.Errorf("it was told %v, want that it differs, and the six works that changed", said)
				}
				a.reports(gone)
				a.talk()
				a.syncs()
				if !isOnline(t, src, "c1") {
					t.Error("offline, though it talks")
				}
			})
		})
	}
}

// TestNeverSeenClustersAreSentTo: who never said that it knows digests is
// published to as OCM's agents are.
func TestNeverSeenClustersAreSentTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		put(t, src, "never", "w")
		ocm := newScripted(t, f, "ocm")
		ocm.asks()
		pass(time.Hour)
		put(t, src, "ocm", "w")
		f.sub.Gone("ocm")
		put(t, src, "ocm", "w")
		synctest.Wait()
		bundles := f.takeBundles()
		for _, want := range []string{"never/" + id("never", "w") + "@1 create_request", "ocm/" + id("ocm", "w") + "@2 update_request"} {
			if !slices.Contains(bundles, want) {
				t.Errorf("published %v, want %s among it", bundles, want)
			}
		}
		if state, ok := src.Agent("ocm"); ok {
			t.Errorf("the roster has an agent of OCM: %+v", state)
		}
	})
}

func TestBeatsKeepAClusterOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		for range 60 {
			pass(time.Minute)
			a.beats(true)
		}
		if state, _ := src.Agent("c1"); !state.Online {
			t.Error("offline, though it beats every minute")
		}
	})
}

// TestNobodyTimesOutWithoutASession: it is this end that does not hear.
func TestNobodyTimesOutWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		f.sub.Down(errors.New("connection reset"))
		pass(24 * time.Hour)
		if !isOnline(t, src, "c1") {
			t.Error("offline while the source itself has no session")
		}
		f.sub.Ready(brokers.Session{})
		pass(2 * time.Minute)
		if !isOnline(t, src, "c1") {
			t.Error("offline at once; the time begins with the session")
		}
		pass(time.Minute)
		if isOnline(t, src, "c1") {
			t.Error("online, though it said nothing since the session began")
		}
	})
}

// TestGoodbyeOfAnEarlierInstance: a will may come after the agent is back.
func TestGoodbyeOfAnEarlierInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		before := *a
		a.instance = digest.Key{2}
		a.syncs()
		before.beats(false)
		if !isOnline(t, src, "c1") {
			t.Error("offline for the goodbye of an instance that was replaced")
		}
	})
}

// TestReturnIsFollowedUp: an agent that comes back with a beat is asked for its
// digest, since works were kept from it.
func TestReturnIsFollowedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		a.beats(false)
		put(t, src, "c1", "w")
		pass(time.Minute)
		a.heard()
		a.beats(true)
		pass(30 * time.Second)
		got := a.heard()
		if len(got) == 0 || !isHello(got[0]) {
			t.Errorf("it was told %v, want hello", got)
		}
	})
}

func isHello(m codec.Message) bool { _, ok := m.(codec.Hello); return ok }

// TestSessionAsksNobodyByOne: clusters that are known to know digests are asked
// with one event for all, and the others as OCM's.
func TestSessionAsksNobodyByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		var agents []*scripted
		for i := range 5 {
			a := newScripted(t, f, fmt.Sprint("c", i))
			a.takes(put(t, src, a.cluster, "w"))
			pass(time.Second)
			a.syncs()
			agents = append(agents, a)
		}
		put(t, src, "ocm", "w")
		pass(time.Minute)
		f.take()
		agents[0].heard()
		before := len(f.broadcasts)
		f.sub.Ready(brokers.Session{})
		pass(20 * time.Second)
		want := []string{"ocm status? 1", "ocm/" + id("ocm", "w") + "@1 create_request"}
		if diff := cmp.Diff(want, f.take()); diff != "" {
			t.Errorf("at a session (-want +got):\n%s", diff)
		}
		if got := f.broadcasts[before:]; len(got) != 1 || !isHello(got[0]) {
			t.Errorf("to all clusters: %v, want one hello", got)
		}
		// A broadcast may be lost. Who did not answer is asked.
		agents[0].digest()
		pass(time.Minute)
		if got := agents[0].heard(); slices.ContainsFunc(got, isHello) {
			t.Errorf("a cluster that answered is asked again: %v", got)
		}
		if got := agents[1].heard(); !slices.ContainsFunc(got, isHello) {
			t.Errorf("a cluster that did not answer heard %v, want hello", got)
		}
	})
}

// TestHelloToWhoCanAnswer: an agent that lists its works and knows digests
// learns that its source knows them, too.
func TestHelloToWhoCanAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		b := put(t, src, "c1", "w")
		pass(time.Second)
		a.heard()
		if got := a.asks(codec.CapDigest); got.String() != "acknowledged" {
			t.Errorf("the question is %s", got)
		}
		got := a.heard()
		if len(got) != 3 || !slices.ContainsFunc(got, isHello) {
			t.Errorf("told %v; want the work, the question for its status, and hello", got)
		}
		a.takes(b)
		a.syncs()
		if state, _ := src.Agent("c1"); !slices.Contains(state.Capabilities, codec.CapDigest) {
			t.Errorf("roster says %+v", state)
		}
		// Another agent takes its place, which knows nothing of this.
		a.asks()
		pass(10 * time.Minute)
		a.heard()
		put(t, src, "c1", "w")
		if got := a.heard(); len(got) != 1 {
			t.Errorf("an agent of OCM was told %v, want the work, however long it says nothing", got)
		}
	})
}

func TestTwoAgentsOfOneCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.syncs()
		b := *a
		b.instance = digest.Key{2}
		duplicate := func() bool {
			pass(2 * time.Second)
			state, _ := src.Agent("c1")
			return state.Duplicate
		}
		b.syncs() // The agent was restarted.
		a.beats(true)
		if duplicate() {
			t.Error("events of the instance before may be under way")
		}
		pass(time.Minute)
		b.beats(true)
		a.beats(true)
		if !duplicate() {
			t.Error("an instance that was replaced a minute ago still speaks; want the roster to know")
		}
		if n := value(t, d, "fleetcast_source_duplicate_agents_total"); n != 1 {
			t.Errorf("counted %v times, want once", n)
		}
		// One of them is stopped: the one that was started later.
		for range 15 {
			pass(time.Minute)
			a.beats(true)
		}
		if duplicate() {
			t.Error("still counted as two, long after the other one was stopped")
		}
		a.syncs()
	})
}

// TestListsStopWhenDigestsBegin: a dispatcher that knows nothing of its clusters
// begins with lists, but not for those that answered its hello in time.
func TestListsStopWhenDigestsBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		const clusters = 400 // Two seconds of comparisons.
		for i := range clusters {
			put(t, src, fmt.Sprint("c", i), "w")
		}
		start(t, src, f, sources.Options{})
		for i := range clusters {
			newScripted(t, f, fmt.Sprint("c", i)).digest()
		}
		pass(time.Minute)
		lists := 0
		for _, said := range f.take() {
			if strings.Contains(said, "status?") {
				lists++
			}
		}
		if lists > clusters/10 {
			t.Errorf("%d of %d clusters were sent lists", lists, clusters)
		}
	})
}
