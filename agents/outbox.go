package agents

import (
	"context"
	"errors"
	"fmt"
	"time"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// An outgoing is what one turn of the outbox sends to a source. What exactly is
// looked up when the turn comes, so the newest is sent, once.
type outgoing struct {
	what string // One of the kinds.
	id   string // Of the work, for reports.
}

// Kinds of what is sent. Some are also the keys of their topics; should a work
// have such an ID, a broker that keeps the last event per key may lose one that
// the next digest makes up for.
const (
	kindReport   = "report"
	kindList     = "list"
	kindDigest   = "digest"
	kindEntries  = "entries"
	kindPresence = "presence"
)

// reportOn is what is to be said of a work.
func reportOn(k Key) outgoing { return outgoing{kindReport, k.ID} }

// queueReport has what is to be said of a work sent, if the agent serves its
// source. The works of a source that was taken off the agent's list stay, and
// what is to be said of them waits in the store until it is on the list again.
func (a *Agent) queueReport(k Key) {
	if _, served := a.dialogues[k.Source]; served {
		a.outbox.Add(k.Source, reportOn(k))
	}
}

// runOutbox sends reports and questions.
func (a *Agent) runOutbox(ctx context.Context) {
	for {
		source, o, ok := a.outbox.Get(ctx)
		if !ok {
			return
		}
		err := a.deliver(ctx, source, o)
		switch {
		case err == nil:
			a.outbox.Forget(source, o)
			a.untell("send")
		case ctx.Err() != nil:
		default:
			wait := a.outbox.Retry(source, o)
			name := a.state.name(Key{source, o.id})
			if errors.Is(err, brokers.ErrUnavailable) {
				// The transport tells that the broker is away; Ready ends the wait.
				a.log.Debug("broker is away, what is to be sent waits", "source", source, "kind", o.what, "work", o.id, "name", name, "next_try", wait)
			} else {
				a.tell("send", "cannot send to source, trying again",
					"source", source, "kind", o.what, "work", o.id, "name", name, "next_try", wait, "err", err)
			}
		}
		a.outbox.Done(source, o)
	}
}

// deliver gives one outgoing its turn.
func (a *Agent) deliver(ctx context.Context, source string, o outgoing) error {
	switch o.what {
	case kindList:
		return a.ask(ctx, source)
	case kindDigest:
		return a.sendDigest(ctx, source)
	case kindEntries:
		return a.sendEntries(ctx, source)
	case kindPresence:
		return a.sendPresence(ctx, source, true)
	default:
		return a.tellOf(ctx, Key{source, o.id})
	}
}

// ask tells a source what this agent has of its works, so that it sends what
// is missing. The list is one message: a part of it would say that the rest is
// missing. A list over the broker's limit is replaced by an empty one, upon
// which the source sends everything: dear, so that is not done in between.
func (a *Agent) ask(ctx context.Context, source string) error {
	q := codec.SpecResync{Agent: a.o.ID, Cluster: a.cluster, Capabilities: a.capabilities(source)}
	to := brokers.Topic{Lane: brokers.ToSource, Source: source, Cluster: a.cluster}
	a.state.each(func(k Key, r *Record) {
		if k.Source == source && !r.Gone() {
			q.Versions = append(q.Versions, codec.Version{ID: k.ID, Generation: r.Bundle.Generation})
		}
	})
	err := a.publish(ctx, to, kindList, codec.ResyncRequest, q)
	switch {
	case err == nil:
	case !errors.Is(err, brokers.ErrTooLarge):
		return err
	case a.takeGreeting(source):
		a.tell("ask", "too many works to list for this broker's packets: asking the source to send all of them",
			"source", source, "works", len(q.Versions), "err", err)
		q.Versions = nil
		if err := a.publish(ctx, to, kindList, codec.ResyncRequest, q); err != nil {
			a.greeting(source)
			return err
		}
		return nil
	}
	a.takeGreeting(source)
	return nil
}

// greeting notes that a source was reached anew, and may have anything that
// this agent has missed.
func (a *Agent) greeting(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.greetings[source] = true
}

// takeGreeting takes that note.
func (a *Agent) takeGreeting(source string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	noted := a.greetings[source]
	delete(a.greetings, source)
	return noted
}

// tellOf publishes the newest that is to be said of a work, if the broker does
// not have it.
func (a *Agent) tellOf(ctx context.Context, k Key) error {
	reports, held := a.state.reports(k)
	for _, r := range reports {
		told, err := a.sendReport(ctx, k, r, held)
		if err != nil {
			return err
		}
		// Losing this in a crash costs sending the report again.
		a.state.changeSoon(mutation{decide: func(d *draft) { d.sent(k, r.Sequence, told) }})
	}
	return nil
}

// sendReport publishes a report, or what the broker takes of it. It returns the
// status hash of what was sent in the report's place, if that was shorter.
func (a *Agent) sendReport(ctx context.Context, k Key, r codec.Report, held *Record) (told string, err error) {
	to := brokers.Topic{Lane: brokers.ToSource, Source: k.Source, Cluster: a.cluster, Key: k.ID}
	err = a.publishReport(ctx, to, r)
	if !errors.Is(err, brokers.ErrTooLarge) || held == nil {
		return "", err
	}
	short, err := shorten(r, held.Bundle)
	if err != nil {
		return "", err
	}
	a.log.Info("report is too large for the broker, sending its conditions only",
		"source", k.Source, "work", k.ID, "name", a.state.name(k))
	return short.Hash, a.publishReport(ctx, to, a.report(short, r.Sequence))
}

// shorten is the report without what manifests say each.
func shorten(r codec.Report, of codec.Bundle) (codec.Report, error) {
	status, err := r.Status()
	if err != nil {
		return codec.Report{}, err
	}
	status.ResourceStatus = workv1.ManifestResourceStatus{}
	of.Generation = r.Generation
	return codec.NewReport(of, status)
}

// publish sends a message of a kind to one source.
func (a *Agent) publish(ctx context.Context, to brokers.Topic, kind string, action codec.Action, m codec.Message) error {
	e, err := m.Encode(action)
	if err != nil {
		return fmt.Errorf("encode for %s: %w", to, err)
	}
	return a.send(ctx, to, kind, e)
}

// send publishes an event of a kind to one source.
func (a *Agent) send(ctx context.Context, to brokers.Topic, kind string, e event.Event) error {
	err := a.transport.Publish(ctx, to, e)
	publishedTotal.WithLabelValues(kind, result(err)).Inc()
	if err != nil {
		return fmt.Errorf("publish to %s: %w", to, err)
	}
	a.dialogues[to.Source].said(time.Now())
	return nil
}
