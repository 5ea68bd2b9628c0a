package sources

import "time"

// unheard is how long after the first event of a cluster whose agent knows no
// digests all of its works count as agreed on: what it has beyond the source it has
// reported by then, as it does when it is asked for its statuses.
const unheard = 10 * time.Minute

// Agrees says whether a cluster, since this Dispatcher was made, was found to hold a
// work as the source has it, and to have reported no other status than the source
// has. What has changed since is what this source sent, and what it was told. Of a
// cluster whose agent knows no digests that is supposed ten minutes after
// it was heard first. It is false for every work of a cluster that was not heard
// yet, whatever an earlier dispatcher knew.
//
// Who restored the source from a backup has works in it that say what was true then:
// nothing that cannot be undone should follow from them before this is true.
func (d *Dispatcher) Agrees(k Key) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[k.Cluster]
	if p == nil {
		return false
	}
	if !p.capable {
		return !p.metAt.IsZero() && time.Since(p.metAt) >= unheard
	}
	_, excused := p.excuses[k.ID]
	return p.agreed && !excused
}

// agree notes that a cluster has the works and the statuses that the source has.
func (d *Dispatcher) agree(cluster string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peerLocked(cluster).agreed = true
}
