package sources_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		synctest.Wait()
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
