package kube

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// judged is a deletion and what became of it.
type judged struct {
	at       time.Time
	decision decision
}

func TestBreakerLetsOnlySoManyPass(t *testing.T) {
	start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for name, tc := range map[string]struct {
		reason  string
		breaker Breaker
		works   int
		apart   time.Duration // Between deletions, of which there is one per work.
		passed  int
	}{
		"few works":      {"ten may go, whatever the share", DefaultBreaker, 10, 0, 10},
		"one more":       {"and not one more", DefaultBreaker, 11, 0, 10},
		"many works":     {"a fifth of many is more than ten", DefaultBreaker, 200, 0, 40},
		"one by one":     {"at most as many as the limit within ten minutes", DefaultBreaker, 60, time.Second, 12},
		"far apart":      {"deletions beyond ten minutes do not count together", DefaultBreaker, 30, 10 * time.Minute, 30},
		"nothing may go": {"an operator may confirm each", Breaker{}, 3, time.Hour, 0},
		"only the share": {"without a number", Breaker{Share: 0.5}, 10, 0, 5},
		"switched off":   {"a share of 1 withholds nothing", Breaker{Share: 1}, 100, 0, 100},
		"a minute apart": {"five in ten minutes, and five in the next", Breaker{Works: 5}, 20, time.Minute, 10},
	} {
		t.Run(name, func(t *testing.T) {
			d, got := deletions{works: tc.works}, 0
			for i := range tc.works {
				d.enlist(fmt.Sprintf("w%03d", i), start.Add(time.Duration(i)*tc.apart))
			}
			for _, f := range d.decide(tc.breaker) {
				if f == passed {
					got++
				}
			}
			if got != tc.passed {
				t.Errorf("%s: %d of %d passed, want %d", tc.reason, got, tc.works, tc.passed)
			}
		})
	}
}

// TestConfirmedDeletionsCount: a cluster that confirms at once does not make room
// for the next deletion of the same script.
func TestConfirmedDeletionsCount(t *testing.T) {
	start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	d, got := deletions{works: 100}, 0
	for i := range 100 {
		id := fmt.Sprintf("w%03d", i)
		d.enlist(id, start.Add(time.Duration(i)*time.Second))
		if d.decide(DefaultBreaker)[id] == passed {
			got++
			d.works--
			d.left(id)
		}
	}
	if got != 20 {
		t.Errorf("%d passed, want 20 of 100", got)
	}
}

// TestBreakerHolds: in whatever order deletions become known, never are more let
// pass within a step than the limit, and each is decided once.
func TestBreakerHolds(t *testing.T) {
	start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		works := rapid.IntRange(1, 60).Draw(t, "works")
		b := Breaker{Share: rapid.Float64Range(0, 0.99).Draw(t, "share"), Works: rapid.IntRange(0, 8).Draw(t, "works at once")}
		d, all := deletions{works: works}, map[string]judged{}
		take := func(decisions map[string]decision) {
			for id, f := range decisions {
				if all[id].decision != undecided {
					t.Fatalf("%s was decided before", id)
				}
				all[id] = judged{all[id].at, f}
			}
		}
		for i := range works {
			// Within half an hour: nothing of it is forgotten as too old to count.
			id, at := fmt.Sprint(i), start.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "second"))*time.Second)
			d.enlist(id, at)
			all[id] = judged{at, undecided}
			if rapid.Bool().Draw(t, "decide") {
				take(d.decide(b))
			}
			if all[id].decision == passed && rapid.Bool().Draw(t, "confirm") {
				d.works--
				d.left(id)
			}
		}
		take(d.decide(b))
		for id, one := range all {
			if one.decision != passed {
				continue
			}
			n := 0
			for _, other := range all {
				// Those before and up to this one: a window of one step.
				if age := one.at.Sub(other.at); other.decision == passed && age >= 0 && age < step {
					n++
				}
			}
			if most := b.limit(works); n > most {
				t.Fatalf("%d deletions passed within a step up to that of %s, at most %d of %d works may", n, id, most, works)
			}
		}
		if d.gone != countGone(d.passed) {
			t.Fatalf("%d are counted as gone, %d are", d.gone, countGone(d.passed))
		}
	})
}

func countGone(all []passing) int {
	n := 0
	for _, p := range all {
		if p.gone {
			n++
		}
	}
	return n
}

// TestOldDeletionsAreForgotten bounds the memory of a cluster whose works come
// and go for ever.
func TestOldDeletionsAreForgotten(t *testing.T) {
	start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	var d deletions
	for i := range 1000 {
		d.pass(passing{id: fmt.Sprint(i), at: start.Add(time.Duration(i) * time.Minute), gone: true})
	}
	if got, most := len(d.passed), int(2*step/time.Minute)+1; got > most || d.gone != got {
		t.Errorf("%d deletions are remembered, %d of them gone; want at most %d", got, d.gone, most)
	}
	d.pass(passing{id: "999", at: start})
	if diff := cmp.Diff("999", d.passed[len(d.passed)-1].id); diff != "" {
		t.Error(diff)
	}
}
