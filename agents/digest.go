package agents

import (
	"context"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// converse has sent to one source what is due, in its time.
func (a *Agent) converse(ctx context.Context, d *dialogue) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		turn, wait := d.due(time.Now())
		if turn.digest {
			a.outbox.Add(d.source, outgoing{what: kindDigest})
		}
		if turn.all {
			a.greeting(d.source)
		}
		if turn.list {
			a.tell("silent "+d.source, "source does not answer digests, listing all works to it until it does", "source", d.source)
			a.outbox.Forget(d.source, outgoing{what: kindList})
			a.outbox.Add(d.source, outgoing{what: kindList})
			a.repeatCompressed(d.source)
		}
		if turn.presence {
			a.outbox.Add(d.source, outgoing{what: kindPresence})
		}
		timer.Stop()
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// sendDigest tells a source what this agent holds of its works, in one sum.
func (a *Agent) sendDigest(ctx context.Context, source string) error {
	d := a.dialogues[source]
	// An answer may come before Publish returns.
	d.speaking(time.Now())
	works, spec, status := a.state.roots(source)
	peer := a.state.peer(source)
	to := brokers.Topic{Lane: brokers.ToSource, Source: source, Cluster: a.cluster, Key: kindDigest}
	err := a.publish(ctx, to, kindDigest, codec.Announce, codec.Digest{
		Agent: a.o.ID, Instance: a.o.Instance, Epoch: peer.Epoch, Term: peer.Term,
		Works: works, Spec: spec, Status: status, Capabilities: a.capabilities(source),
	})
	if err != nil {
		d.unspoken()
	}
	return err
}

// handleHello takes a source's announcement of itself. One of a lead that
// another has followed is answered, too: the answer tells it so. If the other is
// not heard any more, it may have been claimed only, and is forgotten.
func (a *Agent) handleHello(d brokers.Delivery, at *step, h codec.Hello) {
	dialogue := a.dialogues[d.From.Source]
	outranked, forgotten := false, int64(0)
	learn := func(_ *draft, known Peer) Peer {
		outranked, forgotten = known.outranks(h), 0
		if outranked && dialogue.doubt(time.Now()) {
			outranked, forgotten = false, known.Term
			known = Peer{Sequence: known.Sequence}
		}
		return known.announced(h)
	}
	a.hear(d, at, h.Source, learn, func(known Peer) {
		eventsTotal.WithLabelValues("hello").Inc()
		a.log.Debug("source announced itself", "source", h.Source, "epoch", h.Epoch, "term", h.Term, "capabilities", h.Capabilities)
		if outranked {
			dialogue.outranked(time.Now(), h.Spread)
			return
		}
		if forgotten > 0 {
			a.log.Warn("the source's lead of the highest term is not heard any more, following the one that announces itself",
				"source", h.Source, "silent_term", forgotten, "epoch", h.Epoch, "term", h.Term)
		}
		dialogue.greeted(time.Now(), known.digests(), h.Spread)
	})
}

// handleMatch takes a source's word that both sides hold the same.
func (a *Agent) handleMatch(d brokers.Delivery, at *step, m codec.Match) {
	a.handleAnswer(d, at, answerOf{m.Source, m.Instance, m.Term, m.Taken}, func() {
		of := matched{m.Spec, m.Status}
		present := of == a.present(m.Source)
		result := resultMatch
		if !present {
			result = resultOutdated // Something changed since; its digest is due.
		}
		digestsTotal.WithLabelValues(result).Inc()
		dialogue := a.dialogues[m.Source]
		dialogue.matches(time.Now(), of, present)
		if present {
			a.confirmCompressed(m.Source)
		}
		if dialogue.disown(m.Unclaimed) && m.Unclaimed > 0 {
			a.log.Warn("source does not know some of its works that this cluster holds; they stay until their deletion is confirmed on the hub",
				"source", m.Source, "works", m.Unclaimed)
		}
	})
}

// handleBuckets takes a source's word where both sides differ.
func (a *Agent) handleBuckets(d brokers.Delivery, at *step, b codec.Buckets) {
	a.handleAnswer(d, at, answerOf{b.Source, b.Instance, b.Term, b.Taken}, func() {
		digestsTotal.WithLabelValues(resultDiffers).Inc()
		differing := a.differing(b)
		a.dialogues[b.Source].differs(time.Now(), differing)
		a.log.Debug("source holds other works than this cluster", "source", b.Source, "buckets", len(differing))
		if len(differing) > 0 {
			a.outbox.Add(b.Source, outgoing{what: kindEntries})
		}
	})
}

// An answerOf is who answered which of an agent's starts, and the highest
// sequence that it has taken.
type answerOf struct {
	source   string
	instance digest.Key
	term     int64
	taken    codec.Sequence
}

// handleAnswer has act called for an answer to this start of the agent, by the
// newest lead of its source. Others are none of its business: those to an
// earlier start, to another agent that bears the same name, and of a hub that
// another one has taken over from.
func (a *Agent) handleAnswer(d brokers.Delivery, at *step, of answerOf, act func()) {
	if of.source == d.From.Source && of.instance != a.o.Instance {
		digestsTotal.WithLabelValues(resultOtherInstance).Inc()
		if of.term >= a.state.peer(of.source).Term {
			a.dialogues[of.source].assured()
		}
		a.pass(d, at)
		return
	}
	raised := false
	learn := func(dr *draft, known Peer) Peer {
		raised = false
		next := known.answered(of.term)
		if of.term < next.Term {
			return next
		}
		next = next.took(of.taken, dr.Sequence)
		raised = next.Sequence != known.Sequence
		return next
	}
	a.hear(d, at, of.source, learn, func(known Peer) {
		if of.term < known.Term {
			digestsTotal.WithLabelValues(resultFenced).Inc()
			return
		}
		if raised {
			a.tell("sequence "+of.source, "source remembers later reports than this agent, whose data or clock was set back, or which has a double; "+
				"numbering reports from there on", "source", of.source, "sequence", known.Sequence)
		}
		a.untell("silent " + of.source)
		act()
	})
}

// hear keeps what an event says of its source, with the works, and then calls
// act with it.
func (a *Agent) hear(d brokers.Delivery, at *step, source string, learn func(*draft, Peer) Peer, act func(Peer)) {
	if source != d.From.Source {
		a.drop(d, at, "foreign_source", fmt.Errorf("it says it is from source %q", source))
		return
	}
	var known Peer
	a.state.change(mutation{
		step: at,
		decide: func(dr *draft) {
			known = learn(dr, dr.peer(source))
			dr.meet(source, known)
		},
		done: func(err error) {
			if err != nil {
				a.tell("store", "agent's store refuses what a source says of itself, leaving it with the broker", "source", source, "err", err)
				d.Done(fmt.Errorf("store what source %s says of itself: %w", source, err))
				return
			}
			d.Done(nil)
			act(known)
		},
	})
}

// pass acknowledges an event that is not for this start of the agent.
func (a *Agent) pass(d brokers.Delivery, at *step) {
	a.state.log.pass(at) // The next commit takes it along.
	d.Done(nil)
}

// present are the roots of what is held now, as a match has them.
func (a *Agent) present(source string) matched {
	_, spec, status := a.state.roots(source)
	return matched{spec.Short(), status.Short()}
}

// differing are the buckets in which the source expects something else than is
// held now.
func (a *Agent) differing(b codec.Buckets) []uint8 {
	spec, status := a.state.buckets(b.Source)
	var differing []uint8
	for i := range spec {
		if b.Spec != nil && b.Spec[i] != spec[i] || b.Status != nil && b.Status[i] != status[i] {
			differing = append(differing, uint8(i))
		}
	}
	return differing
}

// InSync says whether the source has confirmed that what this agent holds, and
// said of it, is what the source expects. OCM sources never do.
func (a *Agent) InSync(source string) bool {
	d, ok := a.dialogues[source]
	if !ok {
		return false
	}
	of := d.confirmed()
	return of != nil && *of == a.present(source)
}
