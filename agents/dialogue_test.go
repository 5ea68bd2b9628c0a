package agents

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
)

// TestDialogue has everything happen to a dialogue at any time, and holds what
// it sends against what was promised.
func TestDialogue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Quiet: 10 * time.Second, ResyncInterval: 10 * time.Minute, HeartbeatInterval: time.Minute}
		d := newDialogue("hub1", rapid.Bool().Draw(t, "capable"), o)
		d.upTo = func(most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, "jitter"))
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		listening, listed := false, 0
		silent := 0 // Digests since the source was last heard.
		changedAt, spokeAt, digestAt := time.Time{}, time.Time{}, time.Time{}

		// pass lets time go by as the agent does: it sends what is due when it is.
		pass := func(t *rapid.T, span time.Duration) {
			for end := now.Add(span); ; {
				out, wait := d.due(now)
				if out != (turn{}) && (!listening || !d.isCapable()) {
					t.Fatalf("sends %+v to a source that does not listen or know it", out)
				}
				if out.digest {
					if out.list {
						listed++
						if silent < patience {
							t.Fatalf("lists everything after %d digests without an answer", silent)
						}
					}
					d.speaking(now)
					silent, changedAt, spokeAt, digestAt = silent+1, time.Time{}, now, now
					d.said(now)
				} else if out.list {
					t.Fatal("lists everything without a digest")
				}
				if out.presence {
					if since := now.Sub(spokeAt); since < o.HeartbeatInterval {
						t.Fatalf("beats %s after it spoke", since)
					}
					spokeAt = now
					d.said(now)
				}
				if listening && d.isCapable() {
					if now.Sub(spokeAt) > o.HeartbeatInterval {
						t.Fatalf("silent for %s", now.Sub(spokeAt))
					}
					if !changedAt.IsZero() && silent < patience && now.Sub(changedAt) > restless*o.Quiet {
						t.Fatalf("no digest %s after a change", now.Sub(changedAt))
					}
					if now.Sub(digestAt) > 2*o.ResyncInterval {
						t.Fatalf("no digest for %s", now.Sub(digestAt))
					}
				}
				if listed > 1 {
					t.Fatal("lists everything twice on one connection")
				}
				if wait <= 0 || !now.Add(wait).Before(end) {
					now = end
					return
				}
				now = now.Add(wait)
			}
		}
		begin := func() {
			silent, listed = 0, 0
			changedAt, spokeAt, digestAt = time.Time{}, now, now
		}
		// heard: what changed while the source was silent counts from now on.
		heard := func() {
			if silent >= patience && !changedAt.IsZero() {
				changedAt = now
			}
			silent = 0
		}
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) {
				pass(t, time.Duration(rapid.Int64Range(0, int64(30*time.Minute)).Draw(t, "span")))
			},
			"established": func(*rapid.T) {
				d.established(now)
				listening = true
				begin()
			},
			"down": func(*rapid.T) {
				d.down()
				listening = false
			},
			"hello": func(t *rapid.T) {
				was := d.isCapable()
				d.greeted(now, true, time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "spread")))
				heard()
				if !was {
					changedAt, digestAt = time.Time{}, now
					if now.Sub(spokeAt) > o.HeartbeatInterval {
						spokeAt = now.Add(-o.HeartbeatInterval)
					}
				}
			},
			"becomes one of OCM's": func(*rapid.T) {
				d.greeted(now, false, 0)
				silent = 0
			},
			"change": func(*rapid.T) {
				d.change(now)
				if d.isCapable() && changedAt.IsZero() {
					changedAt = now
				}
			},
			"match": func(t *rapid.T) {
				if !d.isCapable() {
					t.Skip("nothing was asked")
				}
				d.matches(now, matched{}, changedAt.IsZero())
				digestAt = now
				heard()
			},
			"differs": func(t *rapid.T) {
				if !d.isCapable() {
					t.Skip("nothing was asked")
				}
				d.differs(now, []uint8{3})
				heard()
				if got := d.takeDiffering(); !got[3] {
					t.Fatal("forgets which buckets the source asked for")
				}
			},
		})
	})
}

// TestRetriesDouble: digests without an answer come ever more seldom.
func TestRetriesDouble(t *testing.T) {
	o := Options{Quiet: 10 * time.Second, ResyncInterval: 10 * time.Minute, HeartbeatInterval: time.Hour}
	d := newDialogue("hub1", true, o)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	d.established(now)
	var pauses []time.Duration
	for last := now; len(pauses) < 12; {
		out, wait := d.due(now)
		if out.digest {
			pauses = append(pauses, now.Sub(last))
			last = now
			d.speaking(now)
			_, wait = d.due(now)
		}
		now = now.Add(wait)
	}
	want := firstRetry
	for i, p := range pauses[1:] {
		if p < want || p > want+want/5 {
			t.Errorf("pause %d is %s, want %s or up to a fifth more", i+1, p, want)
		}
		want = min(2*want, o.ResyncInterval)
	}
}

// TestUnsentDigestsAreNotUnanswered: that the broker takes none does not mean
// that the source is silent.
func TestUnsentDigestsAreNotUnanswered(t *testing.T) {
	o := Options{Quiet: 10 * time.Second, ResyncInterval: 10 * time.Minute, HeartbeatInterval: time.Hour}
	d := newDialogue("hub1", true, o)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.established(now)
	for digests := 0; digests < 2*patience; {
		out, wait := d.due(now)
		if out.list {
			t.Fatalf("lists everything after %d digests that were not sent", digests)
		}
		if out.digest {
			digests++
			d.speaking(now)
			d.unspoken()
			_, wait = d.due(now)
		}
		now = now.Add(wait)
	}
}

// TestSilentSourceHearsNoMore: changes bring no digest forward to a source that
// does not answer.
func TestSilentSourceHearsNoMore(t *testing.T) {
	o := Options{Quiet: 10 * time.Second, ResyncInterval: 10 * time.Minute, HeartbeatInterval: time.Hour}
	d := newDialogue("hub1", true, o)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.established(now)
	digests := 0
	for end := now.Add(12 * time.Hour); now.Before(end); now = now.Add(20 * time.Second) {
		if out, _ := d.due(now); out.digest {
			digests++
			d.speaking(now)
		}
		d.change(now)
	}
	if digests < 60 || digests > 85 {
		t.Errorf("%d digests in twelve hours of changes that nobody confirms, want retries that double up to one per ten minutes", digests)
	}
}

func TestPeer(t *testing.T) {
	known := Peer{Capabilities: []string{codec.CapDigest}, Epoch: "e1", Term: 5}
	cases := map[string]struct {
		reason string
		learn  func(Peer) Peer
		want   Peer
	}{
		"newer hello": {
			"the new lead counts", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e2", Term: 6, Capabilities: []string{"x"}}) },
			Peer{Capabilities: []string{"x"}, Epoch: "e2", Term: 6},
		},
		"hello again": {
			"what a lead says of itself may change", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e1", Term: 5}) },
			Peer{Epoch: "e1", Term: 5},
		},
		"older hello": {
			"its lead is over", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e0", Term: 4}) }, known,
		},
		"newer answer": {
			"an answer tells the term, too, and not whose it is", func(p Peer) Peer { return p.answered(7) },
			Peer{Capabilities: []string{codec.CapDigest}, Term: 7},
		},
		"answer again": {"nothing is new", func(p Peer) Peer { return p.answered(5) }, known},
		"hello of a twin before it": {
			"of two leads of one term all agents follow the same", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e0", Term: 5}) }, known,
		},
		"hello of a twin after it": {
			"of two leads of one term all agents follow the same", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e2", Term: 5}) },
			Peer{Epoch: "e2", Term: 5},
		},
		"older answer": {"its lead is over", func(p Peer) Peer { return p.answered(4) }, known},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.learn(known)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.reason, diff)
			}
		})
	}
	if got := (Peer{}).answered(1); !got.digests() {
		t.Errorf("a source that answered a digest is %+v, want one that knows digests", got)
	}
}
