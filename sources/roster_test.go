package sources_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// flaky is a roster that fails a few times.
type flaky struct {
	*memory.Source

	mu       sync.Mutex
	failures int
	saved    []sources.AgentState
}

func (s *flaky) Agents(ctx context.Context) ([]sources.AgentState, error) {
	if s.fails() {
		return nil, errors.New("not now")
	}
	return s.Source.Agents(ctx)
}

func (s *flaky) SaveAgent(ctx context.Context, a sources.AgentState) error {
	if s.fails() {
		panic("not now")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = append(s.saved, a)
	return s.Source.SaveAgent(ctx, a)
}

func (s *flaky) fails() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures--
	return s.failures >= 0
}

func TestRosterIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &flaky{Source: memory.New(sourceID), failures: 3}, &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		synctest.Wait()
		if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "agents") {
			t.Errorf("ready %v before the roster was read, want what is missing", err)
		}
		pass(time.Minute)
		f.ready()
		src.mu.Lock()
		src.failures = 3
		src.mu.Unlock()
		a := newScripted(t, f, "c1")
		a.syncs()
		pass(time.Minute)
		src.mu.Lock()
		defer src.mu.Unlock()
		if n := len(src.saved); n == 0 || !src.saved[n-1].InSync {
			t.Errorf("saved %+v, want the last to be in sync", src.saved)
		}
	})
}

// TestRosterHearsOfTransitionsOnly, so that a fleet at rest writes nothing.
func TestRosterHearsOfTransitionsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &flaky{Source: memory.New(sourceID)}, &fakeTransport{}
		run(t, src, f, sources.Options{})
		f.ready()
		a := newScripted(t, f, "c1")
		a.syncs()
		pass(time.Minute)
		src.mu.Lock()
		before := len(src.saved)
		src.mu.Unlock()
		for range 60 {
			a.beats(true)
			a.syncs()
			pass(time.Minute)
		}
		src.mu.Lock()
		defer src.mu.Unlock()
		if before != 1 || len(src.saved) != before {
			t.Errorf("saved %d and %d times, want once and never again", before, len(src.saved)-before)
		}
	})
}

// homeless is a roster without a place for agents that are offline.
type homeless struct {
	*memory.Source

	mu    sync.Mutex
	calls int
}

func (s *homeless) SaveAgent(_ context.Context, a sources.AgentState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if a.Online {
		return nil
	}
	return fmt.Errorf("save the agent of %s: %w", a.Cluster, sources.ErrNoCluster)
}

// TestClusterIsForgotten once its agent is offline and its source knows nothing of
// it.
func TestClusterIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &homeless{Source: memory.New(sourceID)}, &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		f.ready()
		a := newScripted(t, f, "c1")
		a.syncs()
		pass(time.Minute)
		if got := value(t, d, "fleetcast_clusters", "state", "online"); got != 1 {
			t.Fatalf("%v clusters are online, want the one", got)
		}
		a.beats(false)
		pass(time.Minute)
		if on, off := value(t, d, "fleetcast_clusters", "state", "online"), value(t, d, "fleetcast_clusters", "state", "offline"); on != 0 || off != 0 {
			t.Errorf("%v clusters are online, %v offline; want none", on, off)
		}
		pass(3 * time.Hour)
		src.mu.Lock()
		defer src.mu.Unlock()
		if src.calls != 2 {
			t.Errorf("the source heard of it %d times, want twice", src.calls)
		}
	})
}

// TestNextDispatcherStartsFromTheRoster: it parks what is offline, and sends no
// lists.
func TestNextDispatcherStartsFromTheRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		for _, c := range []string{"here", "away"} {
			put(t, src, c, "w")
			err := src.SaveAgent(t.Context(), sources.AgentState{
				Cluster: c, Agent: "a", Capabilities: []string{codec.CapDigest}, Online: c == "here",
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		d := start(t, src, f, sources.Options{})
		d.Changed(src.Key("away", "w"))
		pass(20 * time.Second)
		if got := f.take(); got != nil {
			t.Errorf("published %v, want only hello to all", got)
		}
		here, away := newScripted(t, f, "here"), newScripted(t, f, "away")
		expectTalk(t, "online", here.talk(), "differs", id("here", "w")+"@1")
		expectTalk(t, "back", away.talk(), "differs", id("away", "w")+"@1")
	})
}

// TestRosterIsWrittenWithPauses for a cluster that comes and goes all the time,
// and knows what is true in the end.
func TestRosterIsWrittenWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &flaky{Source: memory.New(sourceID)}, &fakeTransport{}
		run(t, src, f, sources.Options{})
		f.ready()
		a := newScripted(t, f, "c1")
		a.digest()
		for i := range 3600 {
			a.beats(i%2 == 0)
			pass(time.Second)
		}
		pass(2 * time.Minute)
		src.mu.Lock()
		defer src.mu.Unlock()
		n := len(src.saved)
		if n < 30 || n > 70 {
			t.Errorf("one cluster had its record written %d times in an hour, want about once a minute", n)
		}
		if src.saved[n-1].Online {
			t.Error("saved as online last, though it left")
		}
	})
}
