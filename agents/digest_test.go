package agents_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// TestDigestsTakeThePlaceOfLists: a source is asked as OCM's are until it shows
// that it knows digests, and never again after that.
func TestDigestsTakeThePlaceOfLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, stop := b.run(agents.Options{})
		b.settle(time.Second)
		if got := b.asked(); len(got) != 1 || !cmp.Equal(got[0].Capabilities, []string{codec.CapDigest, codec.CapZstd}) {
			t.Fatalf("questions = %+v, want one list that tells what the agent can do", got)
		}
		if got := h.heard().digests; len(got) != 0 || a.InSync("hub1") {
			t.Fatalf("%d digests before the source said anything", len(got))
		}

		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		if !a.InSync("hub1") {
			t.Error("not in sync with a source that confirmed a digest")
		}
		first := h.heard().digests
		last := first[len(first)-1]
		if last.Works != 1 || last.Epoch != "e1" || last.Term != 1 || last.Agent != "c1-work-agent" || !cmp.Equal(last.Capabilities, []string{codec.CapDigest, codec.CapZstd}) {
			t.Errorf("digest = %+v, want one of 1 work that echoes epoch e1 and term 1", last)
		}
		stop()

		h.forget()
		a, _ = b.run(agents.Options{})
		b.settle(5 * time.Minute)
		got := h.heard().digests
		if len(b.asked()) != 1 {
			t.Errorf("%d lists after a restart, want digests to a source that is known to know them", len(b.asked())-1)
		}
		if len(got) != 1 || got[0].Instance == last.Instance || got[0].Term != 1 || !a.InSync("hub1") {
			t.Errorf("after a restart digests = %+v, in sync %v; want one, of another instance, in sync", got, a.InSync("hub1"))
		}
		h.forget()
		b.settle(time.Hour)
		if got := len(h.heard().digests); got < 2 || got > 6 {
			t.Errorf("%d digests in an hour of rest, want one per ten to twenty minutes", got)
		}
	})
}

// TestLostWorksComeWithTheNextDigest: the broker loses events while everything
// is connected.
func TestLostWorksComeWithTheNextDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		for i := range 300 {
			h.want(work("hub1", fmt.Sprint("w", i), 1, "one"), false)
		}
		b.settle(time.Minute)
		h.forget()
		h.want(work("hub1", "w7", 2, "two"), true)
		h.want(work("hub1", "new", 1, "one"), true)
		h.want(gone("hub1", "w9", 2), true)
		h.hello()
		b.settle(time.Minute)

		has := b.cluster.has()
		if has["hub1/w7"] != string(work("hub1", "w7", 2, "two").Payload) || has["hub1/new"] == "" || has["hub1/w9"] != "" {
			t.Error("works that were lost on the way are not there")
		}
		if !a.InSync("hub1") {
			t.Error("not in sync a minute after the comparison")
		}
		got := h.heard()
		if len(got.sent) != 3 {
			t.Errorf("the source published %v, want the three that differ", got.sent)
		}
		listed := 0
		for _, e := range got.entries {
			listed += len(e.Entries)
		}
		if listed > 20 {
			t.Errorf("%d entries were sent, want those of three buckets", listed)
		}
	})
}

// TestAnswersOfOthersAreIgnored: those to another agent of the same name, and
// of a hub that another has taken over from.
func TestAnswersOfOthersAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		h.term = 5
		_, stop := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		stop()

		h.mute(true)
		h.forget()
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		own := h.heard().digests[0]
		if own.Term != 5 {
			t.Errorf("digest after a restart echoes term %d, want 5", own.Term)
		}
		match := codec.Match{Source: "hub1", Instance: own.Instance, Term: 5, Spec: own.Spec.Short(), Status: own.Status.Short()}
		foreign, fenced := match, match
		foreign.Instance = digest.Key{1}
		fenced.Term = 4
		h.tell(foreign, codec.Announce)
		h.tell(fenced, codec.Announce)
		h.tell(codec.Buckets{Source: "hub1", Instance: own.Instance, Term: 4}, codec.Announce)
		liar := match
		liar.Source = "hub2"
		h.tell(liar, codec.Announce)
		b.settle(time.Second)
		if a.InSync("hub1") || len(h.heard().entries) != 0 {
			t.Error("the agent believed an answer that was not for it, or not of its source's lead")
		}

		h.forget()
		h.tell(codec.Hello{Source: "hub1", Epoch: "old", Term: 4, Capabilities: []string{codec.CapDigest}}, codec.Announce)
		b.settle(time.Second)
		if got := h.heard().digests; len(got) != 1 || got[0].Term != 5 || got[0].Epoch != "e1" {
			t.Errorf("answer to a hub whose lead is over = %+v, want a digest that tells it of term 5", got)
		}
		h.tell(match, codec.Announce)
		b.settle(time.Second)
		if !a.InSync("hub1") {
			t.Error("not in sync after its source's match")
		}
	})
}

// TestAnswersAreSpread: a hello to all clusters is answered within its spread.
func TestAnswersAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		delays := map[time.Duration]bool{}
		for range 20 {
			h.forget()
			h.tell(codec.Hello{Source: "hub1", Term: 1, Capabilities: []string{codec.CapDigest}, Spread: time.Minute}, codec.Announce)
			start := time.Now()
			for len(h.heard().digests) == 0 && time.Since(start) <= time.Minute {
				b.settle(time.Second)
			}
			delays[time.Since(start).Truncate(5*time.Second)] = true
			if len(h.heard().digests) != 1 {
				t.Fatalf("%d digests within the spread, want 1", len(h.heard().digests))
			}
		}
		if len(delays) < 4 {
			t.Errorf("20 answers fell into %d of 12 parts of the spread", len(delays))
		}
	})
}

// TestStormOfChangesIsNoStormOfDigests: works that change all the time put the
// digest off, but not for ever.
func TestStormOfChangesIsNoStormOfDigests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		h.forget()
		for i := range 600 {
			h.want(work("hub1", "w", int64(i+1), fmt.Sprint(i)), false)
			b.settle(time.Second)
		}
		if got := len(h.heard().digests); got < 8 || got > 12 {
			t.Errorf("%d digests in ten minutes of a change per second, want one per minute", got)
		}
		b.settle(time.Minute)
		if !a.InSync("hub1") {
			t.Error("not in sync after the changes ended")
		}
	})
}

// TestTermIsSafeBeforeItIsBelieved: what a source says of its lead is in the
// store before the event is acknowledged.
func TestTermIsSafeBeforeItIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		h.term = 9
		_, stop := b.run(agents.Options{})
		b.settle(time.Second)
		b.store.fail(3)
		h.hello()
		b.settle(10 * time.Minute)
		stop()
		s, err := b.store.Load()
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]agents.Peer{"hub1": {Capabilities: []string{codec.CapDigest}, Epoch: "e1", Term: 9}}
		if diff := cmp.Diff(want, s.Peers); diff != "" {
			t.Errorf("peers in the store (-want +got):\n%s", diff)
		}
	})
}
