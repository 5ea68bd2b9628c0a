package sources

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

const (
	// awayAfter is how long a cluster may say nothing before it counts as
	// offline: two beats of an agent, and some time for the broker.
	awayAfter = 150 * time.Second

	// watchInterval is how often the peers are looked at.
	watchInterval = 10 * time.Second

	// silenceSpread is the time over which the source hears of clusters that were
	// lost together.
	silenceSpread = 20 * time.Second
)

// A sign is what an event tells of its sender, apart from what it is about.
type sign struct {
	agent        string
	instance     digest.Key // Zero if the event names none.
	capabilities []string   // Nil if the event tells none.
}

// seen takes a sign of life of a cluster. It returns false for one of an
// instance of the agent that was replaced since, which is to be ignored.
func (d *Dispatcher) seen(cluster string, s sign) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, now := d.peerLocked(cluster), time.Now()
	if s.instance != (digest.Key{}) {
		newest, duplicate := p.meet(s.instance, now)
		if duplicate {
			d.duplicatedLocked(cluster, p, now)
		}
		if !newest {
			return false
		}
	}
	p.lastSeen = now
	if p.metAt.IsZero() {
		p.metAt = now
	}
	said := s.capabilities
	if said == nil && s.instance != (digest.Key{}) && !p.capable {
		said = []string{codec.CapDigest} // No other agent names its instance.
	}
	before := p.takesCompressed()
	changed := said != nil && p.tell(s.agent, said)
	if !before && p.takesCompressed() {
		d.reviveLocked(cluster)
	}
	if p.capable && !p.online {
		p.online, p.since, changed = true, now, true
		// What it missed is found out with its digest, which may be coming.
		d.expectLocked(cluster, quietAfter)
		d.log.Debug("cluster is online", "cluster", cluster, "agent", p.agent)
	}
	if changed {
		d.saveLocked(cluster)
	}
	return true
}

// tell takes what an agent says of itself, and returns whether it is news.
func (p *peer) tell(agent string, capabilities []string) bool {
	if len(capabilities) == 0 && !p.capable {
		return false // OCM's, and never anything else.
	}
	told := slices.Compact(slices.Sorted(slices.Values(capabilities)))
	if p.agent == agent && slices.Equal(p.capabilities, told) {
		return false
	}
	p.agent, p.capabilities = agent, told
	capable := slices.Contains(told, codec.CapDigest)
	if p.capable && !capable {
		// Another agent took its place. Nothing that was said of digests counts.
		p.excuses, p.excused, p.unsaved = nil, 0, nil
		p.unclaimed, p.instances, p.inSync, p.asked = nil, nil, false, request{}
		p.names, p.followed = lead{}, false
		p.agreed, p.metAt = false, time.Now()
	}
	p.capable = capable
	return true
}

// duplicatedLocked notes that an instance of an agent was heard although another
// took its place a while ago: both run.
func (d *Dispatcher) duplicatedLocked(cluster string, p *peer, now time.Time) {
	news := p.duplicateAt.IsZero()
	p.duplicateAt = now
	if news {
		d.saveLocked(cluster)
		d.metrics.duplicates.Inc()
		d.log.Warn("two agents speak for one cluster; stop one of them", "cluster", cluster, "agent", p.agent)
	}
}

// left takes a goodbye, or the broker's word for it in the agent's stead.
func (d *Dispatcher) left(cluster string, instance digest.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(cluster)
	if n := len(p.instances); n > 0 && p.instances[n-1].key != instance {
		return // It was replaced already.
	}
	if d.offlineLocked(cluster, p, "it said so, or the broker did") {
		d.saveLocked(cluster)
	}
}

// gone takes the broker's hint that the agent of a cluster is away. If it is
// wrong, the agent's next beat says so.
func (d *Dispatcher) gone(cluster string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.peers[cluster]; ok && d.offlineLocked(cluster, p, "the broker lost its connection") {
		d.saveLocked(cluster)
	}
}

// offlineLocked says whether it is news.
func (d *Dispatcher) offlineLocked(cluster string, p *peer, why string) bool {
	if !p.capable || !p.online {
		return false
	}
	p.online, p.since = false, time.Now()
	d.log.Debug("cluster is offline; nothing is published to it until it returns", "cluster", cluster, "why", why)
	return true
}

// watchPeers finds clusters that say nothing any more, and other things that
// only time tells.
func (d *Dispatcher) watchPeers(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		d.watch(now)
		d.weigh(now) // Clusters come and go.
	}
}

func (d *Dispatcher) watch(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for cluster, p := range d.peers {
		if !p.duplicateAt.IsZero() && now.Sub(p.duplicateAt) > duplicateFor {
			p.duplicateAt = time.Time{}
			d.saveLocked(cluster)
		}
		// While this end has no session, it is the one that is away.
		if d.down == nil && now.Sub(later(p.lastSeen, d.sessionAt)) > awayAfter {
			if d.offlineLocked(cluster, p, "it said nothing for "+awayAfter.String()) {
				// With it may be all that a broker lost.
				d.saveAfterLocked(cluster, rand.N(silenceSpread))
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
