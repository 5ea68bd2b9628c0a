package agents_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
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
		if got := b.asked(); len(got) != 1 || !cmp.Equal(got[0].Capabilities, []string{codec.CapDigest}) {
			t.Fatalf("questions = %+v, want one list that tells of %q", got, codec.CapDigest)
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
		if last.Works != 1 || last.Epoch != "e1" || last.Term != 1 || last.Agent != "c1-work-agent" || !cmp.Equal(last.Capabilities, []string{codec.CapDigest}) {
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
		if got := len(b.asked()) - before; got != 1 {
			t.Errorf("%d lists on one connection, want 1", got)
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

// TestEntriesComeInPages: what the broker takes at a time is less than what
// differs.
func TestEntriesComeInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 6000
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: limit})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		for i := range 400 {
			h.want(work("hub1", fmt.Sprint("w", i), 1, "one"), false)
		}
		b.settle(time.Minute)
		h.b.mu.Lock()
		clear(h.works) // A hub that knows nothing asks for everything.
		clear(h.statuses)
		h.b.mu.Unlock()
		h.forget()
		h.hello()
		b.settle(3 * time.Second)
		seen := map[string]int{}
		pages := h.heard().entries
		for _, p := range pages {
			for _, e := range p.Entries {
				seen[e.ID]++
				if e.Name != e.ID || e.Generation != 1 || e.Digest == (digest.Content{}) || e.Status == "" {
					t.Fatalf("entry = %+v, want all of the work", e)
				}
			}
		}
		if len(pages) < 10 || len(seen) != 400 {
			t.Errorf("%d works on %d pages, want 400 on many", len(seen), len(pages))
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("work %s is on %d pages", id, n)
			}
		}
		if len(b.cluster.has()) != 400 {
			t.Error("a source that knows nothing had works deleted")
		}
	})
}

// TestBucketOverTheLimitIsListed: the works of one bucket do not fit.
func TestBucketOverTheLimitIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 7000})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.run(agents.Options{})
		b.settle(time.Second)
		for i, n := 0, 0; n < 100; i++ {
			if id := fmt.Sprint("w", i); digest.BucketOf(id) == 3 {
				h.want(work("hub1", id, 1, "one"), false)
				n++
			}
		}
		h.hello()
		b.settle(time.Minute)
		h.want(work("hub1", "elsewhere", 1, "one"), true)
		h.b.mu.Lock()
		for id := range h.works {
			h.statuses[id] = strings.Repeat("0", 64)
		}
		h.b.mu.Unlock()
		before := len(b.asked())
		h.forget()
		b.broker.Disconnect("c1-client") // Works that came before may have been listed.
		b.settle(time.Hour)
		if got := len(b.asked()) - before; got != 1 {
			t.Errorf("%d lists in an hour, want 1 per connection", got)
		}
		if b.cluster.has()["hub1/elsewhere"] == "" {
			t.Error("a bucket that cannot be sent kept another from being compared")
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

// TestSourcesCompareApart: two sources have works of the same ID; each is told
// of its own only, and a source that knows none has none deleted.
func TestSourcesCompareApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h1 := b.newHub("hub1")
		b.source = b.listen("hub2")
		h2 := b.newHub("hub2")
		a, _ := b.run(agents.Options{Sources: []string{"hub1", "hub2"}})
		b.settle(time.Second)
		h1.hello()
		h2.hello()
		h1.want(work("hub1", "w", 1, "one"), false)
		h1.want(work("hub1", "mine", 1, "one"), false)
		h2.want(work("hub2", "w", 5, "five"), false)
		b.settle(time.Minute)
		if !a.InSync("hub1") || !a.InSync("hub2") {
			t.Errorf("in sync with hub1 %v, hub2 %v, want both", a.InSync("hub1"), a.InSync("hub2"))
		}
		last := func(h *hub) codec.Digest { d := h.heard().digests; return d[len(d)-1] }
		if last(h1).Works != 2 || last(h2).Works != 1 {
			t.Errorf("digests of %d and %d works, want 2 and 1", last(h1).Works, last(h2).Works)
		}

		h2.b.mu.Lock()
		clear(h2.works)
		clear(h2.statuses)
		h2.b.mu.Unlock()
		h2.forget()
		h2.hello()
		h1.want(gone("hub1", "w", 2), false)
		b.settle(time.Minute)
		for _, page := range h2.heard().entries {
			for _, e := range page.Entries {
				if e.ID != "w" || e.Generation != 5 {
					t.Errorf("hub2 was told of %+v, which is not its work", e)
				}
			}
		}
		wantHas(t, b.cluster, map[string]string{"hub1/mine": "one", "hub2/w": "five"})
		if !a.InSync("hub1") || a.InSync("hub2") {
			t.Errorf("in sync with hub1 %v, hub2 %v, want hub1 only", a.InSync("hub1"), a.InSync("hub2"))
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
