package sources

import (
	"maps"
	"strings"

	"github.com/fleetcast-io/fleetcast/codec"
)

// A cause is why a difference between source and cluster is left as it is.
type cause string

const (
	causeUnclaimed cause = "unclaimed" // The source does not know the work.
	causeLeaving   cause = "leaving"   // The cluster is deleting what the source only remembers.
	causeWithheld  cause = "withheld"  // The deletion waits for a confirmation.
	causeRefused   cause = "refused"   // The newest state cannot be sent.
	causeAhead     cause = "ahead"     // The cluster has a newer state than the source.
)

// An excuse is what a cluster was found to have of one work, and what the
// source then had, for a difference that is left as it is. It stands in for the
// work in what the source expects of the cluster, for as long as the source has
// the same.
type excuse struct {
	cause cause
	has   codec.Entry // Of the cluster.
	lacks bool        // The cluster has nothing.
	own   version     // Of the source; zero if it held nothing.
}

// A version is what is compared of a work that the source holds.
type version struct {
	held       bool
	generation int64
	deleting   bool
	withheld   bool
	gone       bool
	digest     [32]byte
}

func versionOf(h Held) version {
	v := version{held: true, generation: h.Generation, deleting: h.Deleting, withheld: h.Withheld, gone: h.Gone, digest: h.Digest}
	if v.deleting {
		v.digest = [32]byte{}
	}
	return v
}

// same says whether the cluster has of a work what the source holds.
func same(h Held, e codec.Entry) bool {
	return h.Generation == e.Generation && h.Deleting == e.Deleting && (h.Deleting || h.Digest == e.Digest)
}

const (
	// maxExcused is how many bytes the excuses of one cluster may take, beside
	// there being at most MaxUnclaimed of them.
	maxExcused = 4 << 20

	// maxName is how much of the name of a work is remembered, which is for
	// people: what Kubernetes allows.
	maxName = 253
)

// size is about how many bytes an excuse takes.
func (x excuse) size(id string) int { return 256 + 2*len(id) + len(x.has.Name) + len(x.has.Status) }

// excuseLocked leaves a difference as it is. It says false if too many are.
func (p *peer) excuseLocked(id string, x excuse) bool {
	if len(x.has.Name) > maxName {
		x.has.Name = strings.ToValidUTF8(x.has.Name[:maxName], "")
	}
	was, known := p.excuses[id]
	bytes := p.excused + x.size(id)
	if known {
		bytes -= was.size(id)
	}
	if !known && len(p.excuses) >= MaxUnclaimed || bytes > maxExcused {
		return false
	}
	if p.excuses == nil {
		p.excuses = map[string]excuse{}
	}
	p.excuses[id], p.excused = x, bytes
	return true
}

// unexcuse ends the excuse of a work whose source has something new to say.
func (d *Dispatcher) unexcuse(k Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.peers[k.Cluster]; ok {
		p.dropExcuse(k.ID)
	}
}

func (p *peer) dropExcuse(id string) {
	if x, ok := p.excuses[id]; ok {
		p.excused -= x.size(id)
		delete(p.excuses, id)
	}
	if len(p.excuses) == 0 {
		p.excuses = nil // A map keeps its size.
	}
}

// unsave remembers which status of a work the source can never save. It stands in
// for the one that the source has until the cluster reports another.
func (d *Dispatcher) unsave(k Key, hash string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(k.Cluster)
	if !p.capable || hash == "" {
		return
	}
	if _, known := p.unsaved[k.ID]; !known && len(p.unsaved) >= maxUnsaved {
		return
	}
	if p.unsaved == nil {
		p.unsaved = map[string]string{}
	}
	p.unsaved[k.ID] = hash
}

// resave forgets a status that could not be saved: there is another.
func (d *Dispatcher) resave(k Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.peers[k.Cluster]; ok {
		delete(p.unsaved, k.ID)
	}
}

func (d *Dispatcher) unsavedOf(cluster string) map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.peerLocked(cluster).unsaved)
}

// maxUnsaved is how many statuses of one cluster are remembered that cannot be
// saved. A cluster that has more of them goes on being asked for them.
const maxUnsaved = 1000
