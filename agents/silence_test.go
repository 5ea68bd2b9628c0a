package agents_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

// TestSilentSourceIsAskedWithAList: the hub was replaced by one of OCM's, or is
// away.
func TestSilentSourceIsAskedWithAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		h.mute(true)
		h.forget()
		before := len(b.asked())
		b.broker.Disconnect("c1-client")
		b.settle(14 * time.Second) // Digests at 0 s, after 5 s and after 10 s more.
		if got := len(b.asked()) - before; got != 0 {
			t.Errorf("%d lists before three digests went without an answer", got)
		}
		b.settle(46 * time.Second)
		if got := len(b.asked()) - before; got != 1 {
			t.Errorf("%d lists after three digests without an answer, want 1", got)
		}
		b.settle(12 * time.Hour)
		if got := len(b.asked()) - before; got < 10 || got > 13 {
			t.Errorf("%d lists in twelve hours, want one in each hour or so", got)
		}
		if got := len(h.heard().digests); got < 60 || got > 85 {
			t.Errorf("%d digests in twelve hours, want retries that double up to one per ten minutes", got)
		}
		h.mute(false)
		h.forget()
		h.hello()
		b.settle(5 * time.Second)
		if got := len(h.heard().digests); got != 1 {
			t.Errorf("%d digests after the source is back, want 1 at once", got)
		}
	})
}

// TestOCMSourceRepairsWhatIsLost: the hub was away for a while and came back;
// later on the same connection one of OCM's takes its place, and an event is
// lost.
func TestOCMSourceRepairsWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		h.mute(true)
		b.settle(time.Hour)
		h.mute(false)
		h.hello()
		b.settle(24 * time.Hour)

		h.downgrade()
		h.want(work("hub1", "w", 2, "two"), true)
		h.want(work("hub1", "new", 1, "one"), true)
		b.settle(time.Hour)
		wantHas(t, b.cluster, map[string]string{"hub1/w": "two", "hub1/new": "one"})
		h.want(work("hub1", "w", 3, "three"), true)
		b.settle(90 * time.Minute) // Lists to a source that answers no digest are rare.
		wantHas(t, b.cluster, map[string]string{"hub1/w": "three", "hub1/new": "one"})
	})
}

// TestListsThatDoNotFitAskForEverything: neither do digests find anybody who
// answers nor does a list fit, twice on one connection.
func TestListsThatDoNotFitAskForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 7000})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		for i := range 200 {
			h.want(work("hub1", fmt.Sprint("w", i), 1, "one"), false)
		}
		b.settle(time.Hour)
		for i := range 2 {
			before := len(b.asked())
			h.mute(true)
			b.settle(time.Hour)
			got := b.asked()[before:]
			if len(got) != 1 || len(got[0].Versions) != 0 {
				t.Errorf("silence %d: questions %+v, want one for everything", i+1, got)
			}
			h.mute(false)
			h.hello()
			b.settle(time.Hour)
		}
	})
}

// TestClaimedTermIsForgotten: somebody claimed a term that no hub will ever have.
func TestClaimedTermIsForgotten(t *testing.T) {
	claims := map[string]func(h *hub, own codec.Digest) codec.Message{
		"in a hello": func(*hub, codec.Digest) codec.Message {
			return codec.Hello{Source: "hub1", Epoch: "zzz", Term: codec.MaxTerm, Capabilities: []string{codec.CapDigest}}
		},
		"in the hello of one that knows no digests": func(*hub, codec.Digest) codec.Message {
			return codec.Hello{Source: "hub1", Epoch: "zzz", Term: codec.MaxTerm}
		},
		"in an answer": func(_ *hub, own codec.Digest) codec.Message {
			return codec.Match{Source: "hub1", Instance: own.Instance, Term: codec.MaxTerm}
		},
	}
	for name, claim := range claims {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				h := b.newHub("hub1")
				h.greets = true
				a, _ := b.run(agents.Options{})
				b.settle(time.Second)
				h.want(work("hub1", "w", 1, "one"), false)
				b.settle(time.Minute)
				if !a.InSync("hub1") {
					t.Fatal("not in sync")
				}
				h.tell(claim(h, h.heard().digests[0]), codec.Announce)
				b.settle(time.Second)
				h.want(work("hub1", "new", 1, "one"), true)
				before := len(b.asked())
				b.settle(9 * time.Minute)
				if got := b.peer("hub1").Term; got != codec.MaxTerm {
					t.Errorf("follows term %d within ten minutes, which is below the highest", got)
				}
				b.settle(2 * time.Hour)
				if !a.InSync("hub1") {
					t.Error("not in sync with its source's only lead two hours after another one was claimed")
				}
				if got := len(b.asked()) - before; got > 5 {
					t.Errorf("%d lists, want few", got)
				}
				wantHas(t, b.cluster, map[string]string{"hub1/w": "one", "hub1/new": "one"})
				want := agents.Peer{Capabilities: []string{codec.CapDigest}, Epoch: "e1", Term: 1}
				if diff := cmp.Diff(want, b.peer("hub1")); diff != "" {
					t.Errorf("source in the store (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestLeadThatAnswersIsFollowed: an earlier lead that goes on does not make the
// agent forget the one that took over.
func TestLeadThatAnswersIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		h.term = 5
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		for range 4 * 60 {
			h.tell(codec.Hello{Source: "hub1", Epoch: "old", Term: 4, Capabilities: []string{codec.CapDigest}}, codec.Announce)
			b.settle(time.Minute)
		}
		if !a.InSync("hub1") {
			t.Error("not in sync with the lead that answers")
		}
		if got := b.peer("hub1"); got.Term != 5 || got.Epoch != "e1" {
			t.Errorf("follows %+v, want term 5 of e1", got)
		}
	})
}
