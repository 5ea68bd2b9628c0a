package sources

import "time"

// lacking says whether a cluster that is said to have what it should lacks a
// work that the source holds: one that it cannot send, or whose deletion it
// withholds.
func lacking(excuses map[string]excuse) bool {
	for _, x := range excuses {
		if x.lacks && x.own.held {
			return true
		}
	}
	return false
}

// recollection is for how long the answer of forgetful holds: all clusters may
// ask at once.
const recollection = time.Second

// forgetful says whether some cluster holds what this source should know and
// does not, or a later state of it, as when the source was restored from a
// backup. Then it may have forgotten works of clusters that cannot tell, too.
func (d *Dispatcher) forgetful(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.recalledAt.IsZero() && now.Sub(d.recalledAt) < recollection {
		return d.forgot
	}
	d.recalledAt, d.forgot = now, false
	for _, p := range d.peers {
		if len(p.unclaimed) > 0 {
			d.forgot = true
			break
		}
		for _, x := range p.excuses {
			d.forgot = d.forgot || x.cause == causeAhead || x.cause == causeUnclaimed
		}
	}
	return d.forgot
}
