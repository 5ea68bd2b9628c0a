package agents

import "github.com/fleetcast-io/fleetcast/codec"

// A draft is the state as one commit will leave it.
type draft struct {
	s *state
	Changes
	refusals map[Key]*refusal // Those that are new, nil for those that are over.
}

// get returns the record as the draft has it, or nil.
func (d *draft) get(k Key) *Record {
	if r, ok := d.Works[k]; ok {
		return r
	}
	return d.s.works[k]
}

// keys returns all keys as the draft has them.
func (d *draft) keys() []Key {
	keys := make([]Key, 0, len(d.s.works)+len(d.Works))
	for k := range d.s.works {
		if r, ok := d.Works[k]; !ok || r != nil {
			keys = append(keys, k)
		}
	}
	for k, r := range d.Works {
		if _, ok := d.s.works[k]; !ok && r != nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// put replaces the record of a work.
func (d *draft) put(k Key, r *Record) { d.Works[k] = r }

// sent notes that the broker has the report of this sequence on a work; told is
// the status hash of what was sent in its place, if anything was. A newer report
// still waits.
func (d *draft) sent(k Key, sequence codec.Sequence, told string) {
	if r := d.get(k); r != nil && r.Report.Sequence == sequence {
		next := *r
		next.Unsent, next.Told = false, told
		d.put(k, &next)
	}
	if r := d.refusal(k); r != nil && r.report.Sequence == sequence {
		next := *r
		next.unsent = false
		d.refuse(k, &next)
	}
}

// unsend has the report of this sequence on a work sent again as it is.
func (d *draft) unsend(k Key, sequence codec.Sequence) {
	if r := d.get(k); r != nil && r.Report.Sequence == sequence && !r.Unsent {
		next := *r
		next.Unsent = true
		d.put(k, &next)
	}
	if r := d.refusal(k); r != nil && r.report.Sequence == sequence && !r.unsent {
		next := *r
		next.unsent = true
		d.refuse(k, &next)
	}
}

// peer returns what is known of a source as the draft has it.
func (d *draft) peer(source string) Peer {
	if p, ok := d.Peers[source]; ok {
		return p
	}
	return d.s.peers[source]
}

// meet replaces what is known of a source, if that is news.
func (d *draft) meet(source string, p Peer) {
	if !p.equal(d.peer(source)) {
		d.Peers[source] = p
	}
}

// refusal returns the refusal of a version of a work, or nil.
func (d *draft) refusal(k Key) *refusal {
	if r, ok := d.refusals[k]; ok {
		return r
	}
	return d.s.refusals[k]
}

// refuse replaces the refusal of a work; nil ends it.
func (d *draft) refuse(k Key, r *refusal) { d.refusals[k] = r }

// refused returns the works of a source of which a version was refused.
func (d *draft) refused(source string) []Key {
	var keys []Key
	for k := range d.s.refusals {
		if k.Source == source && d.refusal(k) != nil {
			keys = append(keys, k)
		}
	}
	for k, r := range d.refusals {
		if _, listed := d.s.refusals[k]; !listed && k.Source == source && r != nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// issue takes the next sequence for a report to a source. What one source had
// this agent count on from moves the numbers of no other.
func (d *draft) issue(source string) codec.Sequence {
	if p := d.peer(source); p.Sequence > d.Sequence {
		p.Sequence = p.Sequence.Next(d.s.now())
		d.Peers[source] = p
		return p.Sequence
	}
	d.Sequence = d.Sequence.Next(d.s.now())
	return d.Sequence
}
