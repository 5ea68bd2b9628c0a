package sources

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Roster is a Source that keeps what is known of the agents of its clusters,
// for people and for the next dispatcher. Only agents that know digests are in
// it: of others nobody can tell whether they are there.
type Roster interface {
	// Agents returns what was saved, to start from. It is called when a
	// dispatcher starts, and again after an error.
	Agents(ctx context.Context) ([]AgentState, error)

	// SaveAgent keeps the state of one agent. It is called when something of it
	// changed other than LastSeen, and now and then for an offline agent whose
	// cluster has no works; never concurrently for one cluster, and after an error
	// again with what is true then.
	SaveAgent(ctx context.Context, s AgentState) error
}

// AgentState is what is known of the agent of one cluster.
type AgentState struct {
	Cluster string
	// Agent is its identity (CloudEvents source).
	Agent string
	// Capabilities are those that it last told, sorted. Without any it is an
	// agent of OCM, of which nobody knows whether it is online; it is then saved
	// only to take the place of what was saved before.
	Capabilities []string

	// Online says whether it is there, Since from when on that is so.
	Online bool
	Since  time.Time
	// LastSeen is when the last event of it came. It changes without being
	// saved.
	LastSeen time.Time

	// InSync says whether, by its last digest, it holds what the source wants it
	// to, apart from what is known to differ and left so. Whether all that it
	// reported has arrived is another question. SyncedAt is when a
	// digest said so last; like LastSeen, it changes without being saved.
	InSync   bool
	SyncedAt time.Time

	// Duplicate says that two instances of the agent were heard in turns.
	Duplicate bool

	// Unclaimed are the works that it holds and its source does not know, sorted
	// by ID. There may be more of them than are listed (at most MaxUnclaimed).
	Unclaimed []Unclaimed
}

// MaxUnclaimed is how many unclaimed works of one cluster are remembered. A
// cluster that has more of them is never in sync.
const MaxUnclaimed = 10_000

// Unclaimed is a work that a cluster holds and its source does not know. It
// stays there untouched until its source has a work or a tombstone of the ID.
type Unclaimed struct {
	ID, Name   string
	Generation int64
	Deleting   bool
}

const (
	// rosterWorkers is how many calls of Roster.SaveAgent run at a time.
	rosterWorkers = 8

	// rosterPause is how long a change of an agent waits for others.
	rosterPause = time.Second

	// rosterBurst is how often the record of one agent may be written in a row,
	// and rosterInterval how often from then on: one that comes and goes all the
	// time costs the source's store no more than others. What is true in the end
	// is always written.
	rosterBurst    = 5
	rosterInterval = time.Minute
)

// saveLocked has the Roster hear of the state of an agent soon.
func (d *Dispatcher) saveLocked(cluster string) { d.saveAfterLocked(cluster, 0) }

// saveAfterLocked is saveLocked after a delay.
func (d *Dispatcher) saveAfterLocked(cluster string, delay time.Duration) {
	if d.source.roster != nil {
		now := time.Now()
		wait := later(d.peerLocked(cluster).saves, now).Sub(now) - (rosterBurst-1)*rosterInterval
		d.agents.AddAfter(cluster, struct{}{}, max(wait, rosterPause+delay))
	}
}

func (d *Dispatcher) saveAgents(ctx context.Context) {
	for {
		cluster, none, ok := d.agents.Get(ctx)
		if !ok {
			return
		}
		d.saveAgent(ctx, cluster)
		d.agents.Done(cluster, none)
	}
}

func (d *Dispatcher) saveAgent(ctx context.Context, cluster string) {
	d.mu.Lock()
	p, ok := d.peers[cluster]
	if !ok {
		d.mu.Unlock()
		return
	}
	// Its slices are never written to, only replaced.
	s := p.state(cluster)
	p.saves = later(p.saves, time.Now()).Add(rosterInterval)
	d.mu.Unlock()
	err := d.source.SaveAgent(ctx, s)
	if err == nil {
		d.agents.Forget(cluster, struct{}{})
		return
	}
	if errors.Is(err, ErrNoCluster) {
		d.agents.Forget(cluster, struct{}{})
		d.mu.Lock()
		if p := d.peers[cluster]; p != nil && !p.online {
			delete(d.peers, cluster)
		}
		d.mu.Unlock()
		return
	}
	if ctx.Err() != nil {
		return
	}
	wait := d.agents.Retry(cluster, struct{}{})
	d.once.warn("unsaved agent"+cluster, "source could not keep what is known of a cluster's agent, trying again",
		"cluster", cluster, "err", err, "after", wait)
}

// loadAgents starts from what an earlier dispatcher knew.
func (d *Dispatcher) loadAgents(ctx context.Context) error {
	if d.source.roster == nil {
		return nil
	}
	states, err := d.source.Agents(ctx)
	if err != nil {
		return fmt.Errorf("read what is known of the agents: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range states {
		if p := restored(s); p.capable {
			d.peers[s.Cluster] = p
		}
	}
	return nil
}
