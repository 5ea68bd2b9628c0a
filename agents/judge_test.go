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
		"gone, random ID":    {"a random ID is not used twice, whenever the event was sent", gone(2, t1), unique(live(1, "a")), t2, verdictStale},
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

// TestJudgeConverges delivers the versions of a work's life in any order, each
// any number of times, as a broker may. The end is always that of the life.
func TestJudgeConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A life: generations count up, deletions in between end a work, and
		// the next one of the same ID goes on counting.
		type sent struct {
			b  codec.Bundle
			at time.Time
		}
		var life []sent
		at := t0
		for g := range rapid.Int64Range(1, 8).Draw(t, "generations") {
			at = at.Add(time.Second)
			b := live(g+1, fmt.Sprint(g+1))
			if rapid.Bool().Draw(t, "deletes") {
				b = deletion(g+1, at)
			}
			life = append(life, sent{b, at})
		}
		last := life[len(life)-1].b

		var held *Record
		deliver := func(s sent) {
			switch judge(held, s.b, s.at) {
			case verdictAccept:
				if held != nil && !held.Gone() && held.Bundle.Deleting() && !s.b.Deleting() {
					t.Fatalf("generation %d undid the deletion of %d", s.b.Generation, held.Bundle.Generation)
				}
				held = accepted(held, s.b, s.at)
			case verdictNext:
				held = waiting(held, s.b)
			case verdictConfirm, verdictDuplicate, verdictStale:
			}
			// The applier may be done with a deletion at any time.
			if held != nil && held.Bundle.Deleting() && !held.Gone() && rapid.Bool().Draw(t, "done") {
				held = buried(held, codec.Report{}, s.at)
			}
		}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, len(life)-1)).Draw(t, "deliveries") {
			deliver(life[i])
		}
		deliver(life[len(life)-1]) // The newest is what is never lost for good.
		if held.Bundle.Deleting() && !held.Gone() {
			held = buried(held, codec.Report{}, at)
		}
		switch {
		case last.Deleting() && !held.Gone():
			t.Fatalf("the work was deleted at generation %d, but %d is held", last.Generation, held.Bundle.Generation)
		case !last.Deleting() && (held.Gone() || held.Bundle.Generation != last.Generation):
			t.Fatalf("generation %d is the newest, held is %d (gone: %v)", last.Generation, held.Bundle.Generation, held.Gone())
		}
	})
}
