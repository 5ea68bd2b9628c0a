package sources

import "github.com/fleetcast-io/fleetcast/brokers"

// An answer is what a cluster's question was found to call for. The question
// stays with the broker until the answer is there too, so that it is not lost
// with this process.
type answer struct {
	question brokers.Delivery
	left     map[string]struct{} // IDs of works that are not published yet.
}

// answer queues the works that a question called for. It takes the place of an
// answer that is still under way: what that one has left is in this one, or the
// cluster has it by now.
func (d *Dispatcher) answer(cluster string, lacking []Held, question brokers.Delivery) {
	works := d.sendable(cluster, lacking)
	a := &answer{question: question, left: make(map[string]struct{}, len(works))}
	for _, k := range works {
		a.left[k.ID] = struct{}{}
	}
	d.mu.Lock()
	before := d.answers[cluster]
	if len(works) > 0 {
		d.answers[cluster] = a
	} else {
		delete(d.answers, cluster)
	}
	d.mu.Unlock()
	if before != nil {
		before.question.Done(nil)
	}
	if len(works) == 0 {
		question.Done(nil)
	}
	for _, k := range works {
		d.works.Add(cluster, k)
	}
}

// answering returns the answer that waits for a work, nil if none does. Only a
// state that was read after this call is one that the answer waits for.
func (d *Dispatcher) answering(k Key) *answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.answers[k.Cluster]
	if !ok {
		return nil
	}
	if _, ok := a.left[k.ID]; !ok {
		return nil
	}
	return a
}

// answered takes a work off the answer that waited for it, and acknowledges the
// question with the last one. That is called for a work that was published, and
// for one that cannot be published now: a question that stays open for long
// takes room in the broker's window, which is every cluster's.
func (d *Dispatcher) answered(k Key, a *answer) {
	if a == nil {
		return
	}
	d.mu.Lock()
	current := d.answers[k.Cluster] == a
	delete(a.left, k.ID)
	done := current && len(a.left) == 0
	if done {
		delete(d.answers, k.Cluster)
	}
	d.mu.Unlock()
	if done {
		a.question.Done(nil)
	}
}
