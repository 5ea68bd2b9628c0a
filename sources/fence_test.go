package sources_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// terms are those of the hellos to all clusters.
func (f *fakeTransport) terms() []int64 {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	var terms []int64
	for _, m := range f.broadcasts {
		if hello, ok := m.(codec.Hello); ok {
			terms = append(terms, hello.Term)
		}
	}
	return terms
}

// TestNewHubOutbids: clusters know of a higher term, and none of this hub's, as
// when the hub lost its memory.
func TestNewHubOutbids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.term = 41
		a.digest()
		pass(time.Second)
		if got := fmt.Sprint(f.terms()); got != "[1 42]" {
			t.Errorf("hello with terms %s, want 1 and then one above 41", got)
		}
		if err := d.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		a.term = 42
		a.syncs()
		// It leads now, and a lower term is nobody's.
		old := newScripted(t, f, "c2")
		old.term = 41
		old.syncs()
		if err := d.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
	})
}

// TestFencedBetweenSessions: the broker gives each of two hubs of one name the
// session for some seconds, in turns. The one that its cluster left still finds
// out.
func TestFencedBetweenSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		put(t, src, "c1", "w")
		d := start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.term = 1
		a.syncs()
		a.term, a.epoch = 7, "other"
		for range 30 {
			f.sub.Down(errors.New("taken over"))
			pass(5 * time.Second)
			f.sub.Ready(brokers.Session{})
			a.digest()
			pass(5 * time.Second)
		}
		if err := d.Ready(); !errors.Is(err, sources.ErrFenced) {
			t.Errorf("Ready: %v; want that it is fenced after five minutes", err)
		}
	})
}

// TestTwins: two hubs that have led equally often, as two that were installed at
// the same time. Their epochs tell them apart.
func TestTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.term, a.epoch = 1, "!" // Before any epoch that there is.
		a.digest()
		pass(time.Second)
		if got := fmt.Sprint(f.terms()); got != "[1]" {
			t.Errorf("hello with terms %s; want only the first, which the cluster has yet to hear", got)
		}
		a.epoch = "~" // After any.
		a.digest()
		pass(time.Second)
		if got := fmt.Sprint(f.terms()); got != "[1 2]" {
			t.Errorf("hello with terms %s; want another above the twin's: no cluster followed this one", got)
		}
		a.term, a.epoch = 2, ""
		a.syncs()
		a.epoch = "~"
		a.digest()
		pass(time.Minute) // Whoever was not heard yet may say otherwise.
		if err := d.Ready(); !errors.Is(err, sources.ErrFenced) {
			t.Errorf("Ready: %v; want that it is fenced: the clusters left it for the twin", err)
		}
	})
}

// TestFenced: two hubs under one source ID. The one that the clusters leave
// stops, and says what to do.
func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		var agents []*scripted
		for i := range 3 {
			a := newScripted(t, f, fmt.Sprint("c", i))
			a.term = 1
			a.syncs()
			agents = append(agents, a)
		}
		// One cluster alone could stop the hub of all others.
		agents[0].term = 7
		agents[0].digest()
		pass(time.Hour)
		if err := d.Ready(); errors.Is(err, sources.ErrFenced) {
			t.Fatalf("fenced by one cluster of three: %v", err)
		}
		for _, a := range agents {
			a.beats(true)
			a.digest()
		}
		agents[1].term = 7
		agents[1].digest()
		synctest.Wait()
		err := d.Ready()
		if !errors.Is(err, sources.ErrFenced) || !strings.Contains(err.Error(), "stop one of the two hubs") {
			t.Fatalf("Ready: %v; want that it is fenced, and what to do", err)
		}
		if n := value(t, d, "fleetcast_source_fenced"); n != 1 {
			t.Errorf("fleetcast_source_fenced is %v, want 1", n)
		}
		if !f.closed.Load() {
			t.Error("a fenced hub keeps its connection, and with it the session that the other one needs")
		}
		f.take()
		put(t, src, "c0", "w")
		pass(time.Hour)
		if got := f.take(); got != nil {
			t.Errorf("a fenced hub published %v", got)
		}
		f.sub.Down(errors.New("closed"))
		if err := d.Ready(); !errors.Is(err, sources.ErrFenced) {
			t.Errorf("Ready: %v", err)
		}
	})
}

// TestOneClusterFencesNobody, whatever else the hub knows of its other clusters.
func TestOneClusterFencesNobody(t *testing.T) {
	for name, others := range map[string]func(*scripted){
		"OCM's":         func(a *scripted) { a.asks() },
		"offline":       func(a *scripted) { a.syncs(); a.beats(false) },
		"not heard yet": func(*scripted) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := memory.New(sourceID), &fakeTransport{}
				d := start(t, src, f, sources.Options{})
				for i := range 20 {
					c := fmt.Sprint("c", i)
					put(t, src, c, "w")
					a := newScripted(t, f, c)
					a.term = 1
					others(a)
				}
				pass(time.Second)
				bad := newScripted(t, f, "bad")
				bad.term = 1
				bad.digest()
				bad.term = 2
				bad.digest()
				for range 120 {
					pass(time.Minute)
					bad.term += 1000
					bad.digest()
				}
				if err := d.Ready(); errors.Is(err, sources.ErrFenced) {
					t.Errorf("one cluster of 21 fenced the hub: %v", err)
				}
				if n := len(f.terms()); n > 30 {
					t.Errorf("one cluster had the hub say hello to all %d times in two hours", n)
				}
			})
		})
	}
}

// TestRestoredHubLeads although a cluster that just heard of it is the first
// that answers: no other hub has the clusters that know a higher term.
func TestRestoredHubLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		fresh := newScripted(t, f, "fresh")
		fresh.term = 1 // As it heard from the hello.
		fresh.digest()
		pass(300 * time.Millisecond)
		for i := range 3 {
			a := newScripted(t, f, fmt.Sprint("c", i))
			a.term = 9 // Of the hub before it was restored.
			a.digest()
		}
		pass(time.Minute)
		if err := d.Ready(); err != nil {
			t.Errorf("there is no other hub: %v", err)
		}
		if got := fmt.Sprint(f.terms()); got != "[1 10]" {
			t.Errorf("hello with terms %s, want 1 and then one above 9", got)
		}
	})
}

// TestMinorityIsHealed: one cluster heard of a term above that of the hub that
// all the others follow. It ignores this hub until that leads anew.
func TestMinorityIsHealed(t *testing.T) {
	for name, before := range map[string]int64{"that never followed": 2, "that left": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := memory.New(sourceID), &fakeTransport{}
				d := start(t, src, f, sources.Options{})
				var agents []*scripted
				for i := range 4 {
					a := newScripted(t, f, fmt.Sprint("c", i))
					a.term = 1
					a.syncs()
					agents = append(agents, a)
				}
				odd := newScripted(t, f, "odd")
				odd.term = before
				odd.digest()
				odd.term = 2
				n := len(f.terms())
				for range 60 {
					odd.digest()
					for _, a := range agents {
						a.term = f.terms()[len(f.terms())-1]
						a.digest()
					}
					pass(time.Minute)
				}
				terms := f.terms()
				if got := len(terms) - n; got > 10 {
					t.Errorf("one cluster had the hub ask all clusters %d times in an hour", got)
				}
				if last := terms[len(terms)-1]; last != 3 {
					t.Errorf("the hub leads with term %d, want one above 2, so that the cluster listens", last)
				}
				if err := d.Ready(); err != nil {
					t.Errorf("Ready: %v", err)
				}
			})
		})
	}
}

// TestTermsThatCannotBe: terms count leads. Who claims one of millions above
// could only use them up.
func TestTermsThatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTransport{}
		d := start(t, memory.New(sourceID), f, sources.Options{})
		a := newScripted(t, f, "c1")
		for _, term := range []int64{codec.MaxTerm, codec.MaxTerm / 2} {
			a.term = term
			a.digest()
			pass(time.Minute)
		}
		if got := fmt.Sprint(f.terms()); got != "[1]" || d.Ready() != nil {
			t.Errorf("terms %s, ready %v; want that it goes on with its own", got, d.Ready())
		}
	})
}

// TestNoLifetimeNoFencing: a source that does not count its leads has none.
func TestNoLifetimeNoFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTransport{}
		d := run(t, newSource(), f, sources.Options{})
		f.ready()
		a := newScripted(t, f, "c1")
		a.term = 7
		a.digest()
		pass(time.Minute)
		if got := fmt.Sprint(f.terms()); got != "[0]" || d.Ready() != nil {
			t.Errorf("terms %s, ready %v", got, d.Ready())
		}
	})
}

// named is a source whose state has the name that the test gives it.
type named struct {
	*memory.Source

	epoch string
}

func (s named) Begin(ctx context.Context, above int64) (string, int64, error) {
	_, term, err := s.Source.Begin(ctx, above)
	return s.epoch, term, err
}

// TestNoTwoLeadsAreAlike, even of copies, as long as names leave room for that.
func TestNoTwoLeadsAreAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epochs := map[string]bool{}
		for range 2 {
			f := &fakeTransport{}
			d := run(t, named{memory.New(sourceID), strings.Repeat("e", sources.MaxEpoch)}, f, sources.Options{})
			f.ready()
			if err := d.Ready(); err != nil {
				t.Errorf("Ready: %v", err)
			}
			f.terms()
			epochs[f.broadcasts[0].(codec.Hello).Epoch] = true
		}
		if len(epochs) != 2 {
			t.Errorf("epochs %v, want two", epochs)
		}
		d := run(t, named{memory.New(sourceID), strings.Repeat("e", sources.MaxEpoch+1)}, &fakeTransport{}, sources.Options{})
		synctest.Wait()
		if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "epoch") {
			t.Errorf("Ready: %v, want that the epoch is too long", err)
		}
	})
}
