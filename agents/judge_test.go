package agents

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
)

var (
	t0 = time.Date(2026, 2, 3, 4, 5, 0, 0, time.UTC)
	t1 = t0.Add(time.Minute)
	t2 = t0.Add(2 * time.Minute)
)

func live(generation int64, content string) codec.Bundle {
	return codec.Bundle{ID: "w", Source: "hub1", Cluster: "c1", Generation: generation, Payload: []byte(content)}
}

func deletion(generation int64, at time.Time) codec.Bundle {
	b := live(generation, "")
	b.Payload, b.DeletedAt = nil, at
	return b
}

func TestJudge(t *testing.T) {
	gone := func(generation int64, at time.Time) *Record {
		return &Record{Bundle: deletion(generation, at), GoneAt: t2, Buried: at}
	}
	next := live(7, "next")
	unique := func(b codec.Bundle) codec.Bundle {
		b.ID = "45274291-b5e7-473b-a33e-cb5d82869fc0"
		return b
	}
	derived := func(b codec.Bundle) codec.Bundle {
		b.ID = "d413c17e-d14b-567d-87b3-5cc5ff557269"
		return b
	}
	cases := map[string]struct {
		reason string
		held   *Record
		b      codec.Bundle
		sent   time.Time
		want   verdict
	}{
		"first":              {"a work that was never seen is taken", nil, live(1, "a"), t0, verdictAccept},
		"first deletion":     {"a deletion of a work that was never seen is to be confirmed", nil, deletion(1, t0), t0, verdictAccept},
		"newer":              {"a higher generation replaces a lower one", &Record{Bundle: live(1, "a")}, live(2, "b"), t0, verdictAccept},
		"older":              {"a lower generation is dropped", &Record{Bundle: live(2, "b")}, live(1, "a"), t2, verdictStale},
		"again":              {"brokers deliver twice", &Record{Bundle: live(2, "b")}, live(2, "b"), t0, verdictDuplicate},
		"equal, changed":     {"OCM's sources change metadata within a generation", &Record{Bundle: live(2, "b")}, live(2, "c"), t0, verdictAccept},
		"unversioned":        {"without generations the last one delivered counts", &Record{Bundle: live(0, "b")}, live(0, "c"), t0, verdictAccept},
		"unversioned again":  {"what is held already changes nothing", &Record{Bundle: live(0, "b")}, live(0, "b"), t0, verdictDuplicate},
		"becomes versioned":  {"a source may begin to count", &Record{Bundle: live(0, "b")}, live(1, "c"), t0, verdictAccept},
		"deletion":           {"a deletion counts at a higher generation", &Record{Bundle: live(1, "a")}, deletion(2, t1), t1, verdictAccept},
		"deletion, equal":    {"OCM's in-memory works do not count up for it", &Record{Bundle: live(1, "a")}, deletion(1, t1), t1, verdictAccept},
		"deletion, none":     {"nor do they count at all", &Record{Bundle: live(3, "a")}, deletion(0, t1), t1, verdictAccept},
		"deletion, older":    {"a deletion of an earlier work of this ID is late", &Record{Bundle: live(5, "a")}, deletion(2, t1), t1, verdictStale},
		"deletion, restored": {"a work whose ID is used once is meant, whatever the hub was restored to", &Record{Bundle: unique(live(5, "a"))}, unique(deletion(2, t1)), t1, verdictAccept},
		"deletion, ended":    {"what was sent before an earlier work of this ID ended is about that", &Record{Bundle: live(1, "a"), Sent: t2, Buried: t1, Ended: t1}, deletion(9, t0), t0, verdictStale},
		"deletion, buried":   {"so is one that was done already, though the work counts from 1 again", &Record{Bundle: live(1, "a"), Buried: t1}, deletion(4, t1), t1, verdictStale},
		"deletion again":     {"it is under way", &Record{Bundle: deletion(2, t1)}, deletion(2, t1), t1, verdictDuplicate},
		"deletion, newer":    {"its confirmation is what the source waits for", &Record{Bundle: deletion(2, t1)}, deletion(3, t1), t1, verdictAccept},
		"late update":        {"nothing older undoes a deletion", &Record{Bundle: deletion(2, t1)}, live(1, "a"), t0, verdictStale},
		"late update, equal": {"nor anything of the same generation", &Record{Bundle: deletion(2, t1)}, live(2, "a"), t0, verdictStale},
		"created again":      {"a later work of this ID waits until the deletion is done", &Record{Bundle: deletion(2, t1)}, live(3, "n"), t2, verdictNext},
		"created from 1":     {"also if it counts from 1 again", &Record{Bundle: deletion(2, t1)}, live(1, "n"), t2, verdictNext},
		"waits already":      {"what waits is replaced by newer ones only", &Record{Bundle: deletion(2, t1), Next: &next}, live(6, "n"), t2, verdictStale},
		"gone, asked again":  {"the confirmation was lost", gone(2, t1), deletion(2, t1), t1, verdictConfirm},
		"gone, late create":  {"a late copy does not bring the work back", gone(2, t1), live(1, "a"), t0, verdictStale},
		"gone, newer":        {"a higher generation is another work", gone(2, t1), live(3, "a"), t0, verdictAccept},
		"gone, from 1 again": {"so is one that was sent after the deletion", gone(2, t1), live(1, "a"), t2, verdictAccept},
		"gone, derived ID":   {"OCM's sources derive IDs from names", gone(2, t1), derived(live(1, "a")), t2, verdictAccept},
		"gone, random ID":    {"a random ID is not used twice, whenever the event was sent: its source forgot that it deleted it", gone(2, t1), unique(live(1, "a")), t2, verdictConfirm},
		"gone, edited":       {"above the deletion the source knows what it does", gone(2, t1), unique(live(3, "a")), t2, verdictAccept},
		"deleting, random":   {"nor while the deletion is under way", &Record{Bundle: deletion(2, t1)}, unique(live(1, "a")), t2, verdictStale},
		"gone, same second":  {"deletion timestamps count seconds, so the deletion's event tells better", &Record{Bundle: deletion(0, t1), Sent: t1.Add(9), GoneAt: t2, Buried: t1}, live(0, "a"), t1.Add(5), verdictStale},
		"created since":      {"a work that was sent after that event is another", &Record{Bundle: deletion(0, t1), Sent: t1.Add(5), GoneAt: t2, Buried: t1}, live(0, "a"), t1.Add(9), verdictAccept},
		"earlier work":       {"its generations say nothing of the one that is held", &Record{Bundle: live(1, "b"), Sent: t2, Buried: t1, Ended: t1}, live(5, "a"), t0, verdictStale},
		"earlier work, gone": {"nor of one that is gone", &Record{Bundle: deletion(2, t2), Sent: t2, GoneAt: t2, Buried: t2, Ended: t1}, live(5, "a"), t0, verdictStale},
		"two in one second":  {"a deletion that was sent after the work is none of an earlier one", &Record{Bundle: live(0, "b"), Sent: t1.Add(5), Buried: t1, Ended: t1.Add(3)}, deletion(0, t1), t1.Add(9), verdictAccept},
		"its copy":           {"one that was sent before is", &Record{Bundle: live(0, "b"), Sent: t1.Add(5), Buried: t1, Ended: t1.Add(3)}, deletion(0, t1), t1.Add(3), verdictStale},
		"gone, unversioned":  {"without generations the time decides", gone(0, t1), live(0, "a"), t0, verdictStale},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := judge(c.held, c.b, c.sent); got != c.want {
				t.Errorf("%s: judge = %s, want %s", c.reason, got, c.want)
			}
		})
	}
}

// A replay is a record under deliveries, with an applier that may be done with
// a deletion at any time.
type replay struct{ held *Record }

func (r *replay) deliver(t *rapid.T, b codec.Bundle, sent time.Time) {
	switch judge(r.held, b, sent) {
	case verdictAccept:
		if r.held != nil && !r.held.Gone() && r.held.Bundle.Deleting() && !b.Deleting() {
			t.Fatalf("generation %d undid the deletion of %d", b.Generation, r.held.Bundle.Generation)
		}
		r.held = accepted(r.held, b, sent)
	case verdictNext:
		r.held = waiting(r.held, b, sent)
	case verdictConfirm:
		r.held = askedAgain(r.held, b)
	case verdictDuplicate, verdictStale:
	}
	if rapid.Bool().Draw(t, "done") {
		r.finish(sent)
	}
}

// finish is the applier that is done with a deletion.
func (r *replay) finish(now time.Time) {
	if r.held != nil && r.held.Bundle.Deleting() && !r.held.Gone() {
		r.held = buried(r.held, codec.Report{}, now)
	}
}

// TestJudgeDeletesWhatWaited: deletion timestamps count seconds, so two works of
// one ID that are deleted within a second are told apart by when that was sent,
// also when the second had to wait for the first one's end.
func TestJudgeDeletesWhatWaited(t *testing.T) {
	after := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	r := replay{held: &Record{Bundle: deletion(2, t0), Sent: after(1)}}
	again := live(3, "again")
	if got := judge(r.held, again, after(2)); got != verdictNext {
		t.Fatalf("judge = %s, want %s", got, verdictNext)
	}
	r.held = waiting(r.held, again, after(2))
	r.finish(after(3))
	if got := judge(r.held, deletion(2, t0), after(1)); got != verdictStale {
		t.Errorf("a late copy of the first deletion: judge = %s, want %s", got, verdictStale)
	}
	if got := judge(r.held, deletion(4, t0), after(4)); got != verdictAccept {
		t.Errorf("the deletion of the second work: judge = %s, want %s", got, verdictAccept)
	}
}

// TestJudgeConverges delivers the versions of works of one ID in any order,
// each any number of times, as a broker may. The end is always that of the
// newest. Generations go on over deletions, as in our sources, or begin again,
// as in OCM's.
func TestJudgeConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			b    codec.Bundle
			sent time.Time
		}
		var life []version
		sent, generation, restarts := t0, int64(0), rapid.Bool().Draw(t, "generations restart")
		for range rapid.IntRange(1, 8).Draw(t, "versions") {
			sent = sent.Add(time.Second)
			generation++
			if rapid.Bool().Draw(t, "deletes") {
				life = append(life, version{deletion(generation, sent), sent})
				if restarts {
					generation = 0
				}
			} else {
				life = append(life, version{live(generation, fmt.Sprint(len(life))), sent})
			}
		}
		newest := life[len(life)-1]

		var r replay
		deliveries := rapid.SliceOf(rapid.IntRange(0, len(life)-1)).Draw(t, "deliveries")
		if restarts {
			// Nothing tells an earlier work's versions from this one's until its
			// end is known: OCM's agents have every version delivered in order
			// once.
			for _, v := range life {
				r.deliver(t, v.b, v.sent)
				if v.b.Deleting() {
					r.finish(v.sent)
				}
			}
		}
		for _, i := range deliveries {
			r.deliver(t, life[i].b, life[i].sent)
		}
		r.deliver(t, newest.b, newest.sent) // The newest is what is never lost for good.
		r.finish(newest.sent)
		switch {
		case newest.b.Deleting() && !r.held.Gone():
			t.Fatalf("the work was deleted at generation %d, but %d is held", newest.b.Generation, r.held.Bundle.Generation)
		case !newest.b.Deleting() && (r.held.Gone() || string(r.held.Bundle.Payload) != string(newest.b.Payload)):
			t.Fatalf("%q is the newest, held is %q (gone: %v)", newest.b.Payload, r.held.Bundle.Payload, r.held.Gone())
		}
	})
}
