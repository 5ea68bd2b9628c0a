package agents

// Fate says whether this agent holds a work, and, if not, whether it remembers
// that the source had it deleted. An agent that knows nothing of the work says
// neither: it may have lost its disk, and its source may have forgotten the work;
// what both lack may be wanted all the same. It does not block, and may be called
// concurrently.
func (a *Agent) Fate(source, id string) (held, deleted bool) {
	r := a.state.get(Key{source, id})
	if r == nil {
		return false, false
	}
	return !r.Gone(), r.Gone()
}
