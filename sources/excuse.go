package sources

import "github.com/fleetcast-io/fleetcast/codec"

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
	digest     [32]byte
}

func versionOf(h Held) version {
	v := version{held: true, generation: h.Generation, deleting: h.Deleting, withheld: h.Withheld, digest: h.Digest}
	if v.deleting {
		v.digest = [32]byte{}
	}
	return v
}

// same says whether the cluster has of a work what the source holds.
func same(h Held, e codec.Entry) bool {
	return h.Generation == e.Generation && h.Deleting == e.Deleting && (h.Deleting || h.Digest == e.Digest)
}

// excuseLocked leaves a difference as it is. It says false if too many are.
func (p *peer) excuseLocked(id string, x excuse) bool {
	if _, known := p.excuses[id]; !known && len(p.excuses) >= MaxUnclaimed {
		return false
	}
	if p.excuses == nil {
		p.excuses = map[string]excuse{}
	}
	p.excuses[id] = x
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
	delete(p.excuses, id)
	if len(p.excuses) == 0 {
		p.excuses = nil // A map keeps its size.
	}
}
