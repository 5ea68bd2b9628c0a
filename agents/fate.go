package agents

import (
	"time"
)

// Lifetime names the lifetime of the source's state in which the source last
// confirmed that it wants the work; empty if it never did. It says something to
// Fate only. It does not block, and may be called concurrently.
func (a *Agent) Lifetime(source, id string) string {
	r := a.state.get(Key{source, id})
	if r == nil || r.Gone() {
		return ""
	}
	return r.Lifetime
}

// Fate says whether this agent holds a work, and, if not, whether it is certain
// that the source does not want it: it had this agent delete it; or, for a work
// that it confirmed in this lifetime of its state, it and the agent agree in that
// same lifetime, on the present connection, on all that the agent shall hold. An
// agent that does not know says neither: it holds nothing at first, meets a
// source that forgot, or one of OCM's, which cannot say. It does not block, and
// may be called concurrently.
func (a *Agent) Fate(source, id, lifetime string) (held, unwanted bool) {
	r := a.state.get(Key{source, id})
	if r != nil {
		return !r.Gone(), r.Gone()
	}
	d, ok := a.dialogues[source]
	if !ok || lifetime == "" {
		return false, false
	}
	// A work that came since the match makes the present differ from it.
	agreed := d.agreement(time.Now())
	return false, agreed.lifetime == lifetime && a.InSync(source)
}

// confirm keeps with works that their source wants them.
func (a *Agent) confirm(held map[Key]*Record, lifetime string) {
	if len(held) == 0 {
		return
	}
	a.state.change(mutation{decide: func(d *draft) {
		for k, r := range held {
			if d.get(k) == r { // Otherwise it is another one than the source meant.
				next := *r
				next.Lifetime = lifetime
				d.put(k, &next)
			}
		}
	}})
}

// unconfirmed are the works of a source that it did not confirm in this
// lifetime.
func (s *state) unconfirmed(source, lifetime string) map[Key]*Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found map[Key]*Record
	for k, r := range s.works {
		if k.Source == source && !r.Gone() && !r.Bundle.Deleting() && r.Lifetime != lifetime {
			if found == nil {
				found = map[Key]*Record{}
			}
			found[k] = r
		}
	}
	return found
}
