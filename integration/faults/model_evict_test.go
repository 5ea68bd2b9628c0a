package faults_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/sources"
)

const (
	// evictGrace is for how long an agent must have been certain that a work is
	// not wanted until what it left behind is removed.
	evictGrace = time.Hour
	// evictInterval is how often it is asked.
	evictInterval = 5 * time.Minute
)

// hands are what one start of an agent acts on its cluster with.
type hands struct {
	*cluster
	crash *crash
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
	held, deleted := a.Fate(k.Source, k.ID)
	switch {
	case held:
		delete(c.unwanted, k)
	case deleted && c.unwanted[k] < evictGrace:
		c.unwanted[k] += evictInterval
	case deleted:
		if !may {
			c.broken("V3: cluster %s evicted work %s of %s, which nobody deleted", c.name, k.ID, k.Source)
		}
		delete(c.objects, k)
		delete(c.unwanted, k)
		c.evicted[k]++
	}
}

// staysLocked says whether a cluster may go on having what it has of a deleted
// work: its agent was set back and does not know the work any more, so that
// nobody remembers both the deletion and what is on the cluster. See
// docs/adr/0015-eviction.md.
func (w *world) staysLocked(key sources.Key, d *desk, c *cluster) bool {
	if !w.damaged[c.name] {
		return false
	}
	known, err := w.stores[c.name].Load()
	return err == nil && known.Works[agents.Key{Source: d.id, ID: key.ID}] == nil
}

// caseAgentForgets: an agent goes on from before a deletion while nobody can tell
// it so, and makes the work again; then it loses its disk. Nobody sends that
// deletion any more: the hub has its confirmation, and the agent does not know
// the work. It stays, as does everything that is wanted: that both ends lack a
// work proves nothing.
func caseAgentForgets(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.pass(time.Hour)
	k := agents.Key{Source: "hub1", ID: w.desks["hub1"].idOf("c1", "w9")}
	older, err := copyOf(w.stores["c1"])
	w.must(err)
	w.remove("hub1", "c1", "w9")
	w.mustConverge(soon)
	w.net.broker.Stop()
	w.setBack("c1", older)
	w.pass(time.Minute)
	has := w.clusters["c1"].all()
	if _, there := has[k]; !there {
		t.Fatal("the agent did not make the work again")
	}
	w.setBack("c1", &agents.Volatile{})
	w.net.broker.Wipe() // A log would tell it all again.
	w.net.broker.Start()
	w.pass(4 * evictGrace)
	w.mustConverge(0)
	if now := w.clusters["c1"].all(); !maps.Equal(now, has) || len(w.clusters["c1"].evicted) > 0 {
		t.Errorf("the cluster has %v, want %v", now, has)
	}
}

// caseClusterSetBack: a cluster is restored to before a deletion that its agent
// remembers. What came back is evicted after the grace period.
func caseClusterSetBack(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	k := agents.Key{Source: "hub1", ID: w.desks["hub1"].idOf("c1", "w9")}
	before := w.clusters["c1"].all()
	w.remove("hub1", "c1", "w9")
	w.mustConverge(soon)
	w.clusters["c1"].setBack(k, before[k])
	w.pass(evictGrace / 2)
	if _, has := w.clusters["c1"].has(k); !has {
		t.Error("it was evicted before the grace period was over")
	}
	w.pass(2 * evictGrace)
	w.mustConverge(0)
	if n := w.clusters["c1"].evicted[k]; n != 1 {
		t.Errorf("the work was evicted %d times", n)
	}
}
