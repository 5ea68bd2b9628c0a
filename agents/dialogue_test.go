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
		listening := false
		silent := 0             // Digests since the source was last heard.
		listedAt := time.Time{} // The last list since the source last answered.
		changedAt, spokeAt, digestAt := time.Time{}, time.Time{}, time.Time{}

		// pass lets time go by as the agent does: it sends what is due when it is.
		pass := func(t *rapid.T, span time.Duration) {
			for end := now.Add(span); ; {
				out, wait := d.due(now)
				if out != (turn{}) && (!listening || !d.isCapable()) {
					t.Fatalf("sends %+v to a source that does not listen or know it", out)
				}
				if out.digest {
					want := silent >= patience && (listedAt.IsZero() || now.Sub(listedAt) >= dear*o.ResyncInterval)
					if out.list != want {
						t.Fatalf("lists everything: %v, after %d digests without an answer, the last list %s ago", out.list, silent, now.Sub(listedAt))
					}
					if out.list {
						listedAt = now
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
				if wait <= 0 || !now.Add(wait).Before(end) {
					now = end
					return
				}
				now = now.Add(wait)
			}
		}
		begin := func() {
			silent, listedAt = 0, time.Time{}
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
			"an earlier lead's hello": func(*rapid.T) {
				if d.isCapable() {
					d.outranked(now, 0)
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
				digestAt, listedAt = now, time.Time{}
				heard()
			},
			"differs": func(t *rapid.T) {
				if !d.isCapable() {
					t.Skip("nothing was asked")
				}
				d.differs(now, []uint8{3})
				listedAt = time.Time{}
				heard()
				if got := d.takeDiffering(); !got[3] {
					t.Fatal("forgets which buckets the source asked for")
				}
			},
		})
	})
}

// spend lets time pass for a dialogue with a source that answers every digest,
// or none, and counts what it is sent.
func spend(d *dialogue, now *time.Time, span time.Duration, answers bool) (digests, lists, all int) {
	for end := now.Add(span); now.Before(end); {
		out, wait := d.due(*now)
		if out.list {
			lists++
		}
		if out.all {
			all++
		}
		if out.digest {
			digests++
			d.speaking(*now)
			if answers {
				d.matches(*now, matched{}, true)
			}
			continue
		}
		*now = now.Add(min(wait, end.Sub(*now)))
	}
	return digests, lists, all
}

// TestListComesBack: the hub was away for a while; months later, on the same
// connection, a source takes its place that knows OCM's protocol only.
func TestListComesBack(t *testing.T) {
	d := newDialogue("hub1", true, Options{}.withDefaults("c1"))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.established(now)
	spend(d, &now, time.Hour, true)
	if digests, lists, _ := spend(d, &now, time.Hour, false); lists != 1 {
		t.Errorf("%d lists among %d digests in an hour without an answer, want one", lists, digests)
	}
	d.greeted(now, true, 0)
	if _, lists, _ := spend(d, &now, 24*time.Hour, true); lists != 0 {
		t.Errorf("%d lists to a source that answers", lists)
	}
	d.fallBack(now)
	digests, lists, all := spend(d, &now, 24*time.Hour, false)
	if lists < 18 || lists > 24 || all != 1 {
		t.Errorf("%d lists among %d digests in a day to a source that answers none, %d of which may ask for everything; want one in each hour or so, the first of which may",
			lists, digests, all)
	}
}

// TestGreetingsAreNoAnswers: a source that says hello upon every list, and
// answers no digest, is not listed to any more often for that.
func TestGreetingsAreNoAnswers(t *testing.T) {
	d := newDialogue("hub1", true, Options{}.withDefaults("c1"))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.established(now)
	lists := 0
	for end := now.Add(5 * time.Hour); now.Before(end); {
		_, n, _ := spend(d, &now, time.Second, false)
		if lists += n; n > 0 {
			d.greeted(now, true, 0)
		}
	}
	if lists < 3 || lists > 5 {
		t.Errorf("%d lists in five hours, want one in each hour or more", lists)
	}
}

// TestEntriesThatDoNotFit: as long as a bucket is over the broker's limit, the
// list takes its place time and again.
func TestEntriesThatDoNotFit(t *testing.T) {
	d := newDialogue("hub1", true, Options{}.withDefaults("c1"))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.established(now)
	lists, dearest := 0, 0
	for end := now.Add(12 * time.Hour); now.Before(end); now = now.Add(time.Minute) {
		list, all := d.fallBack(now)
		if list {
			lists++
		}
		if all {
			dearest++
		}
		d.matches(now, matched{}, true)
	}
	if lists != 72 || dearest != 12 {
		t.Errorf("%d lists in twelve hours, %d of which may ask for everything; want one in ten minutes, and one in an hour that may", lists, dearest)
	}
	d.established(now)
	if list, all := d.fallBack(now); !list || !all {
		t.Error("no list on a new connection")
	}
}

// TestDoubt: what it takes for the agent to forget the lead that it follows.
func TestDoubt(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		reason  string
		capable bool
		before  func(d *dialogue, now time.Time) // What happens between the hellos of the lead below.
		after   time.Duration
		want    bool
	}{
		{"three digests were not answered", true, nil, doubtful, true},
		{"a source that is sent no digests need not answer any", false, nil, doubtful, true},
		{"the silence was too short", true, nil, doubtful - time.Second, false},
		{"the source confirmed a digest", true, func(d *dialogue, now time.Time) { d.matches(now, matched{}, true) }, doubtful, false},
		{"the source asked for entries", true, func(d *dialogue, now time.Time) { d.differs(now, nil) }, doubtful, false},
		{"the source said hello", true, func(d *dialogue, now time.Time) { d.greeted(now, true, 0) }, doubtful, false},
		{"the source answered a twin of this agent", true, func(d *dialogue, _ time.Time) { d.assured() }, doubtful, false},
		{"the connection was lost", true, func(d *dialogue, _ time.Time) { d.down() }, doubtful, false},
		{"the connection was lost and is back", true, func(d *dialogue, now time.Time) { d.down(); d.established(now) }, doubtful, false},
		{"no digest was sent", true, func(d *dialogue, _ time.Time) {
			for range 100 {
				d.unspoken()
			}
		}, doubtful, false},
	} {
		now := start
		d := newDialogue("hub1", tc.capable, Options{}.withDefaults("c1"))
		d.established(now)
		if d.doubt(now) {
			t.Errorf("%s: one hello of a lead below made the agent forget", tc.reason)
		}
		if tc.capable {
			spend(d, &now, 5*time.Minute, false)
		}
		if tc.before != nil {
			tc.before(d, now)
		}
		if got := d.doubt(start.Add(tc.after)); got != tc.want {
			t.Errorf("%s: forgets the lead that it follows: %v, want %v", tc.reason, got, tc.want)
		}
	}
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

// TestBriskRetries: a source that answers and does not confirm is behind a link
// that loses events. It is spoken to often for five minutes, and then ever more
// seldom.
func TestBriskRetries(t *testing.T) {
	o := Options{Quiet: 10 * time.Second, ResyncInterval: 10 * time.Minute, HeartbeatInterval: time.Hour}
	d := newDialogue("hub1", true, o)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d.established(now)
	differing := func(span time.Duration) (digests int) {
		for end := now.Add(span); now.Before(end); {
			out, wait := d.due(now)
			if out.digest {
				digests++
				d.speaking(now)
				d.differs(now, []uint8{1})
				_, wait = d.due(now)
			}
			now = now.Add(min(wait, end.Sub(now)))
		}
		return digests
	}
	if n := differing(5 * time.Minute); n < 50 || n > 61 {
		t.Errorf("%d digests in the first five minutes, want one in each five seconds", n)
	}
	if n := differing(24 * time.Hour); n < 110 || n > 155 {
		t.Errorf("%d digests in the next day, want one in each ten minutes or so", n)
	}
	d.matches(now, matched{}, true)
	d.change(now)
	if n, _, _ := spend(d, &now, 5*time.Minute, false); n < 4 || n > 6 {
		t.Errorf("%d digests in five minutes to a source that is silent after all was well, want pauses that double", n)
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
	const mine codec.Sequence = 2018536199680954368
	known := Peer{Capabilities: []string{codec.CapDigest}, Epoch: "e1", Term: 5, Sequence: mine}
	cases := map[string]struct {
		reason string
		learn  func(Peer) Peer
		want   Peer
	}{
		"newer hello": {
			"the new lead counts", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e2", Term: 6, Capabilities: []string{"x"}}) },
			Peer{Capabilities: []string{"x"}, Epoch: "e2", Term: 6, Sequence: mine},
		},
		"hello again": {
			"what a lead says of itself may change", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e1", Term: 5}) },
			Peer{Epoch: "e1", Term: 5, Sequence: mine},
		},
		"older hello": {
			"its lead is over", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e0", Term: 4}) }, known,
		},
		"newer answer": {
			"an answer tells the term, too, and not whose it is", func(p Peer) Peer { return p.answered(7) },
			Peer{Capabilities: []string{codec.CapDigest}, Term: 7, Sequence: mine},
		},
		"answer again": {"nothing is new", func(p Peer) Peer { return p.answered(5) }, known},
		"hello of a twin before it": {
			"of two leads of one term all agents follow the same", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e0", Term: 5}) }, known,
		},
		"hello of a twin after it": {
			"of two leads of one term all agents follow the same", func(p Peer) Peer { return p.announced(codec.Hello{Epoch: "e2", Term: 5}) },
			Peer{Epoch: "e2", Term: 5, Sequence: mine},
		},
		"it took nothing later": {"nothing is new", func(p Peer) Peer { return p.took(mine, mine-1) }, known},
		"it took what others were told": {
			"the numbers of all sources are above it", func(p Peer) Peer { return p.took(mine+7, mine+7) }, known,
		},
		"it took later ones": {
			"the next is above them", func(p Peer) Peer { return p.took(mine+7, mine+6) },
			Peer{Capabilities: []string{codec.CapDigest}, Epoch: "e1", Term: 5, Sequence: mine + 7},
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
