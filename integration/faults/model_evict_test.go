package faults_test

import (
	"context"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
)

const (
	// evictGrace is for how long an agent must have been certain that a work is
	// not wanted until what it left behind is removed.
	evictGrace = time.Hour
	// evictInterval is how often it is asked.
	evictInterval = 5 * time.Minute
)

// A leftover is what a cluster keeps with the objects of a work, as an
// AppliedManifestWork does: it outlives what the agent knows.
type leftover struct {
	lifetime string        // See agents.Agent.Lifetime.
	unwanted time.Duration // For how long an agent was certain.
}

// hands are what one start of an agent acts on its cluster with.
type hands struct {
	*cluster
	crash *crash
	agent atomic.Pointer[agents.Agent]
}

// Apply implements agents.Applier.
func (h *hands) Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	report, err := h.cluster.Apply(ctx, b, last)
	k := agents.Key{Source: b.Source, ID: b.ID}
	if lifetime := h.agent.Load().Lifetime(k.Source, k.ID); err == nil && lifetime != "" {
		h.mark(k, lifetime)
	}
	return report, err
}

// run has the agent run, and removes what it is certain that nobody wants.
func (h *hands) run(ctx context.Context, a *agents.Agent) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(evictInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !h.crash.dead() {
				h.evict(a)
			}
		}
	}()
	err := a.Run(ctx)
	cancel()
	<-ended
	return err
}

// mark keeps with the objects of a work in which lifetime its source confirmed
// it.
func (c *cluster) mark(k agents.Key, lifetime string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.objects[k]; has {
		l := c.leftovers[k]
		l.lifetime = lifetime
		c.leftovers[k] = l
	}
}

// evict takes what each work left behind one step further, by what an agent
// knows of it.
func (c *cluster) evict(a *agents.Agent) {
	for k := range c.all() {
		may := c.mayEvict(k) // Not under the lock: desks look at clusters under theirs.
		c.evictOne(a, k, may)
	}
}

func (c *cluster) evictOne(a *agents.Agent, k agents.Key, may bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.objects[k]; !has || c.busy[k] {
		return
	}
	l := c.leftovers[k]
	held, unwanted := a.Fate(k.Source, k.ID, l.lifetime)
	switch {
	case held:
		l.unwanted = 0
	case unwanted && l.unwanted < evictGrace:
		l.unwanted += evictInterval
	case unwanted:
		if !may {
			c.broken("V3: cluster %s evicted work %s of %s, which nobody deleted", c.name, k.ID, k.Source)
		}
		delete(c.objects, k)
		delete(c.leftovers, k)
		c.evicted[k]++
		return
	}
	c.leftovers[k] = l
}

// staysLocked says whether a cluster may go on having what it has of a deleted
// work: its agent was set back and does not know the work any more, and cannot be
// certain that the source does not want it, since the source never confirmed the
// work to it, or is known to have forgotten some. Otherwise it is evicted, see
// docs/adr/0015-eviction.md.
func (w *world) staysLocked(key sources.Key, d *desk, c *cluster) bool {
	if !w.damaged[c.name] {
		return false
	}
	k := agents.Key{Source: d.id, ID: key.ID}
	if known, err := w.stores[c.name].Load(); err != nil || known.Works[k] != nil {
		return false
	}
	c.mu.Lock()
	lifetime := c.leftovers[k].lifetime
	c.mu.Unlock()
	return lifetime != d.data.epoch || d.forgetful && w.forgotLocked(d)
}

// forgotLocked says whether some cluster has what the desk should know and
// does not, or a later state of it.
func (w *world) forgotLocked(d *desk) bool {
	for k, work := range d.data.works {
		if d.lapsedLocked(k, work.bundle) {
			return true
		}
	}
	for name, c := range w.clusters {
		for k := range c.all() {
			key := sources.Key{Cluster: name, ID: k.ID}
			_, known := d.data.works[key]
			_, dead := d.data.tombstones[key]
			if k.Source == d.id && !known && !dead {
				return true
			}
		}
	}
	return false
}

// caseAgentEvicts: an agent goes on from before a deletion while nobody can tell
// it so, and makes the work again; then it loses its disk. Nobody sends that
// deletion any more: the hub has its confirmation, and the agent does not know
// the work. If the hub confirmed the work to the agent before, what is left of it
// is evicted; otherwise it stays. Works that are wanted stay in either case.
func caseAgentEvicts(confirmed bool) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Helper()
		w.fill()
		if confirmed {
			w.pass(time.Hour) // They are compared, and applied again.
		}
		k := agents.Key{Source: "hub1", ID: w.desks["hub1"].idOf("c1", "w9")}
		older, err := copyOf(w.stores["c1"])
		w.must(err)
		if !confirmed {
			s, err := older.Load()
			w.must(err)
			s.Works[k].Lifetime = ""
		}
		w.remove("hub1", "c1", "w9")
		w.mustConverge(soon)
		wanted := w.clusters["c1"].all()
		w.net.broker.Stop()
		w.setBack("c1", older)
		w.pass(time.Minute)
		if _, has := w.clusters["c1"].has(k); !has {
			t.Fatal("the agent did not make the work again")
		}
		w.setBack("c1", &agents.Volatile{})
		w.net.broker.Wipe() // A log would tell it all again.
		w.net.broker.Start()
		w.pass(evictGrace)
		if _, has := w.clusters["c1"].has(k); !has {
			t.Error("it was evicted before the grace period was over")
		}
		w.pass(evictGrace)
		w.mustConverge(0)
		if n := w.clusters["c1"].evicted[k]; n != map[bool]int{true: 1}[confirmed] {
			t.Errorf("the work was evicted %d times", n)
		}
		has := w.clusters["c1"].all()
		delete(has, k)
		if !maps.Equal(has, wanted) || len(w.clusters["c1"].evicted) > 1 {
			t.Errorf("the cluster has %v, want %v", has, wanted)
		}
	}
}
