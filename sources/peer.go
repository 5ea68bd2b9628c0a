package sources

import (
	"slices"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// A peer is what is known of the agent of one cluster. All of it can be had
// again: from the roster, or from the agent's next event.
type peer struct {
	agent        string
	capabilities []string
	capable      bool // It knows digests. Of others, presence means nothing.
	online       bool
	since        time.Time
	lastSeen     time.Time
	instances    []instance // In the order in which they were first seen.
	duplicateAt  time.Time  // The last sign of two instances; zero for none.

	names      lead      // The newest one that it knows, by its last digest.
	followed   bool      // It named a lead of this process.
	heardAt    time.Time // Its last digest.
	answeredAt time.Time // The last answer to one.
	inSync     bool
	syncedAt   time.Time // When it had all, by its last digest that said so.
	metAt      time.Time // When this process heard of it first.
	agreed     bool      // A digest said, to this process, that it had all and the source its statuses.

	comparedAt time.Time // The last comparison with its entries.
	asked      request
	helloAt    time.Time // The last hello to it alone.
	plainUntil time.Time // When it may be told again that compressed reports are read.
	saves      time.Time // When the writes of its record so far would be due, one a minute.

	excuses   map[string]excuse
	excused   int               // About how many bytes they take.
	unsaved   map[string]string // Hashes of statuses that can never be saved, by ID.
	unclaimed []Unclaimed
	notedAt   map[string]time.Time // When the source was last told of a drop, by reason.
}

// An instance is one start of an agent's process.
type instance struct {
	key         digest.Key
	first, last time.Time // When it was heard.
}

const (
	// maxInstances is how many instances of an agent are remembered.
	maxInstances = 4

	// instanceGrace is how long the events of an instance may come after those
	// of its successor: they were under way.
	instanceGrace = time.Minute

	// duplicateFor is how long a cluster counts as one with two agents after
	// the last sign of it.
	duplicateFor = 10 * time.Minute
)

// meet takes an instance that was heard of, and says whether it is the newest
// and whether it should have been gone by now. When the newest says nothing any
// more, an older one that still speaks takes its place.
func (p *peer) meet(key digest.Key, now time.Time) (newest, duplicate bool) {
	known := slices.IndexFunc(p.instances, func(i instance) bool { return i.key == key })
	last := len(p.instances) - 1
	switch {
	case known < 0:
		if len(p.instances) == maxInstances {
			p.instances = slices.Delete(p.instances, 0, 1)
		}
		p.instances = append(p.instances, instance{key, now, now})
		return true, false
	case known == last:
		p.instances[last].last = now
		return true, false
	case now.Sub(p.instances[last].last) > awayAfter:
		p.instances = append(slices.Delete(p.instances, known, known+1), instance{key, now, now})
		return true, false
	}
	return false, now.Sub(p.instances[last].first) > instanceGrace
}

// parked says that nothing is published to a cluster now: its agent is away,
// and its digest brings what it misses when it returns.
func (p *peer) parked() bool { return p != nil && p.capable && !p.online }

// state is the record of the peer for a Roster.
func (p *peer) state(cluster string) AgentState {
	return AgentState{
		Cluster:      cluster,
		Agent:        p.agent,
		Capabilities: p.capabilities,
		Online:       p.online,
		Since:        p.since,
		LastSeen:     p.lastSeen,
		InSync:       p.inSync,
		SyncedAt:     p.syncedAt,
		Duplicate:    !p.duplicateAt.IsZero(),
		Unclaimed:    p.unclaimed,
	}
}

// restored is the peer of a record.
func restored(s AgentState) *peer {
	p := &peer{
		agent:        s.Agent,
		capabilities: s.Capabilities,
		capable:      slices.Contains(s.Capabilities, codec.CapDigest),
		online:       s.Online,
		since:        s.Since,
		lastSeen:     s.LastSeen,
		inSync:       s.InSync,
		syncedAt:     s.SyncedAt,
		unclaimed:    s.Unclaimed,
	}
	if s.Duplicate {
		p.duplicateAt = time.Now()
	}
	return p
}

// peerLocked returns the peer of a cluster, which is unknown at first.
func (d *Dispatcher) peerLocked(cluster string) *peer {
	p, ok := d.peers[cluster]
	if !ok {
		p = &peer{}
		d.peers[cluster] = p
	}
	return p
}

// parked says that nothing is published to a cluster now.
func (d *Dispatcher) parked(cluster string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers[cluster].parked()
}
