package sources

import (
	"context"
	"errors"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	// refusedTries is how often the broker may refuse a work before the source
	// hears of it: permissions are often granted a moment after a cluster joins.
	refusedTries = 3

	// outcomeWorkers is how many calls of Refuser.Refused run at a time.
	outcomeWorkers = 8
)

// A refusal remembers what of a work could not be sent, and in which session
// with the broker: another session may have other limits.
type refusal struct {
	generation int64
	reason     string
	session    int
	retried    bool // The broker refuses it for now, so it is still tried.
	tooLarge   bool // It is for its size, which depends on what the cluster takes.
}

// An outcome is what became of the last attempt to send a work, for a Refuser.
// A nil reason says that it was sent.
type outcome struct {
	generation int64
	reason     error
}

// refuse gives a work up until it changes, and tells the source why once per
// generation and reason.
func (d *Dispatcher) refuse(k Key, generation int64, reason error) {
	d.works.Forget(k.Cluster, k)
	d.land(k)
	if !d.noteRefusal(k, refusal{generation: generation, reason: reason.Error(), tooLarge: errors.Is(reason, brokers.ErrTooLarge)}) {
		return
	}
	d.metrics.refused.Inc()
	d.log.Warn("work cannot be sent to its cluster until it is changed", "cluster", k.Cluster, "id", k.ID,
		"generation", generation, "err", reason)
	d.tell(k, outcome{generation, reason})
}

// withhold tells the source of a deletion that waits for a confirmation. It is
// tried whenever there is a reason to: the confirmation changes no generation.
func (d *Dispatcher) withhold(k Key, generation int64, reason error) {
	d.works.Forget(k.Cluster, k)
	d.land(k)
	if d.noteRefusal(k, refusal{generation: generation, reason: ErrWithheld.Error(), retried: true}) {
		d.once.warn("withheld"+k.Cluster, "deletions are withheld from a cluster until they are confirmed",
			"cluster", k.Cluster, "id", k.ID, "err", reason)
		d.tell(k, outcome{generation, reason})
	}
}

// refusedByBroker tells the source of a work that the broker goes on refusing.
// It is tried all the same: what the broker allows changes without a word.
func (d *Dispatcher) refusedByBroker(k Key, generation int64, reason error) {
	if d.works.Failures(k.Cluster, k) < refusedTries {
		return
	}
	// What brokers say may differ from try to try; the fact does not.
	if d.noteRefusal(k, refusal{generation: generation, retried: true}) {
		d.tell(k, outcome{generation, reason})
	}
}

// noteRefusal remembers a refusal and says whether it is news.
func (d *Dispatcher) noteRefusal(k Key, r refusal) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	last, known := d.refused[k]
	r.session = d.sessions
	d.refused[k] = r
	return !known || last.generation != r.generation || last.reason != r.reason || last.retried != r.retried
}

// givenUp says that sending this generation again in this session with the
// broker would fail as it did before.
func (d *Dispatcher) givenUp(k Key, generation int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.givenUpLocked(k, generation)
}

func (d *Dispatcher) givenUpLocked(k Key, generation int64) bool {
	r, ok := d.refused[k]
	return ok && !r.retried && generation != 0 && r.generation == generation && r.session == d.sessions
}

// tell has a Refuser hear of an outcome. That goes through a queue of its own:
// a source that cannot note what was sent has the note tried again, not the
// work sent again.
func (d *Dispatcher) tell(k Key, o outcome) {
	if d.source.refuser == nil {
		return
	}
	d.mu.Lock()
	d.untold[k] = o
	d.mu.Unlock()
	d.outcomes.Add(k.Cluster, k)
}

func (d *Dispatcher) tellOutcomes(ctx context.Context) {
	for {
		cluster, k, ok := d.outcomes.Get(ctx)
		if !ok {
			return
		}
		d.tellOutcome(ctx, k)
		d.outcomes.Done(cluster, k)
	}
}

func (d *Dispatcher) tellOutcome(ctx context.Context, k Key) {
	d.mu.Lock()
	o, ok := d.untold[k]
	delete(d.untold, k)
	d.mu.Unlock()
	if !ok {
		return
	}
	err := d.source.Refused(ctx, k, o.generation, o.reason)
	if err == nil {
		d.outcomes.Forget(k.Cluster, k)
		return
	}
	if ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	if _, newer := d.untold[k]; !newer {
		d.untold[k] = o
	}
	d.mu.Unlock()
	wait := d.outcomes.Retry(k.Cluster, k)
	d.once.warn("untold"+k.Cluster, "source could not note whether a work can be sent, trying again",
		"cluster", k.Cluster, "id", k.ID, "err", err, "after", wait)
}
