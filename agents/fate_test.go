package agents_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
)

func wantFate(t *testing.T, reason string, a *agents.Agent, id, lifetime string, held, unwanted bool) {
	t.Helper()
	if h, u := a.Fate("hub1", id, lifetime); h != held || u != unwanted {
		t.Errorf("%s: work %s is held %v, unwanted %v, want %v and %v", reason, id, h, u, held, unwanted)
	}
}

// TestFateOfAWorkThatTheSourceKnewAndKnowsNoMore in one lifetime of its state.
func TestFateOfAWorkThatTheSourceKnewAndKnowsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		h.epoch = "life.lead1"
		a, stop := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		h.want(work("hub1", "other", 1, "one"), false)
		wantFate(t, "nobody said anything of it yet", a, "lost", "life", false, false)
		b.settle(time.Minute)
		if got := a.Lifetime("hub1", "w"); got != "life" {
			t.Errorf("w was confirmed in lifetime %q, want that of the hub without its lead", got)
		}
		wantFate(t, "it is there", a, "w", "life", true, false)
		wantFate(t, "both agree on all there is", a, "lost", "life", false, true)
		wantFate(t, "it is from another hub", a, "lost", "former", false, false)
		wantFate(t, "nobody knows from which hub it is", a, "lost", "", false, false)
		if held, unwanted := a.Fate("hub2", "lost", "life"); held || unwanted {
			t.Errorf("of a source that the agent does not serve: held %v, unwanted %v", held, unwanted)
		}

		b.broker.Disconnect("c1-client")
		b.settle(0)
		wantFate(t, "what was agreed on an earlier connection may not stand", a, "lost", "life", false, false)
		b.settle(time.Minute)
		wantFate(t, "agreed again", a, "lost", "life", false, true)
		h.mute(true)
		b.settle(2 * time.Hour)
		wantFate(t, "the source was not heard for long", a, "lost", "life", false, false)
		h.mute(false)

		stop()
		h.greets = true
		b.store = &failing{} // The disk is lost.
		a, _ = b.run(agents.Options{})
		wantFate(t, "the disk is lost", a, "w", "life", false, false)
		b.settle(time.Hour)
		wantFate(t, "the source sent it again", a, "w", "life", true, false)
	})
}

// TestFateIsUnknown where a source confirms what the agent holds, and yet may
// want more.
func TestFateIsUnknown(t *testing.T) {
	cases := map[string]struct {
		reason string
		hub    func(*hub)
	}{
		"not complete": {"it wants works that it cannot send, or has forgotten some", func(h *hub) { h.lacks = true }},
		"no lifetime":  {"it does not say which of its lifetimes this is", func(h *hub) { h.epoch = "" }},
		"no digests":   {"an answer to a list proves nothing", func(h *hub) { h.ocm = true }},
		"silent":       {"it is away", func(h *hub) { h.silent = true }},
		"other":        {"it began anew", func(h *hub) { h.epoch = "later.lead1" }},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				h := b.newHub("hub1")
				h.epoch = "life.lead1"
				tt.hub(h)
				a, _ := b.run(agents.Options{})
				b.settle(time.Second)
				if !h.ocm {
					h.hello()
				}
				h.want(work("hub1", "w", 1, "one"), false)
				b.settle(3 * time.Hour)
				wantFate(t, tt.reason, a, "lost", "life", false, false)
			})
		})
	}
}

// TestFateOfADeletedWork: the agent remembers that it was deleted, and that the
// source's state was another since makes no difference.
func TestFateOfADeletedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		h.epoch = "life.lead1"
		a, stop := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		h.want(gone("hub1", "w", 1), false)
		b.settle(time.Minute)
		wantFate(t, "its deletion is done", a, "w", "", false, true)
		stop()
		a, _ = b.run(agents.Options{})
		wantFate(t, "the disk remembers", a, "w", "", false, true)
	})
}

// TestConfirmedWorksAreOfTheLatestLifetime, if its source knows them.
func TestConfirmedWorksAreOfTheLatestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		h.set(func() { h.epoch = "life.lead1" })
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.hello()
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		h.set(func() { h.epoch, h.term, h.lacks = "next.lead1", 2, true })
		h.hello()
		b.settle(time.Minute)
		if got := a.Lifetime("hub1", "w"); got != "life" {
			t.Errorf("lifetime %q before the new hub confirmed all, want the former", got)
		}
		h.set(func() { h.lacks = false })
		b.settle(30 * time.Minute)
		if got := a.Lifetime("hub1", "w"); got != "next" {
			t.Errorf("lifetime %q after the new hub confirmed all, want the new", got)
		}
	})
}
