package agents

import (
	"context"
	"errors"
	"fmt"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
)

// runOutbox sends reports and questions.
func (a *Agent) runOutbox(ctx context.Context) {
	for {
		source, id, ok := a.outbox.Get(ctx)
		if !ok {
			return
		}
		var err error
		if id == "" {
			err = a.ask(ctx, source)
		} else {
			err = a.send(ctx, Key{source, id})
		}
		switch {
		case err == nil:
			a.outbox.Forget(source, id)
			a.untell("send")
		case ctx.Err() != nil:
		default:
			wait := a.outbox.Retry(source, id)
			if errors.Is(err, brokers.ErrUnavailable) {
				// The transport tells that the broker is away; Ready ends the wait.
				a.log.Debug("broker is away, report waits", "source", source, "work", id, "next_try", wait)
			} else {
				a.tell("send", "cannot send to source, trying again", "source", source, "work", id, "next_try", wait, "err", err)
			}
		}
		a.outbox.Done(source, id)
	}
}

// ask tells a source what this agent has of its works, so that it sends what
// is missing. The list is one message: a part of it would say that the rest is
// missing. A list over the broker's limit is replaced by an empty one, upon
// which the source sends everything: dear, so that is not done in between.
func (a *Agent) ask(ctx context.Context, source string) error {
	q := codec.SpecResync{Agent: a.o.ID, Cluster: a.cluster}
	to := brokers.Topic{Lane: brokers.ToSource, Source: source, Cluster: a.cluster}
	a.state.each(func(k Key, r *Record) {
		if k.Source == source && !r.Gone() {
			q.Versions = append(q.Versions, codec.Version{ID: k.ID, Generation: r.Bundle.Generation})
		}
	})
	err := a.publish(ctx, to, codec.ResyncRequest, q)
	switch {
	case err == nil:
	case !errors.Is(err, brokers.ErrTooLarge):
		return err
	case a.takeGreeting(source):
		a.tell("ask", "too many works to list for this broker's packets: asking the source to send all of them",
			"source", source, "works", len(q.Versions), "err", err)
		q.Versions = nil
		if err := a.publish(ctx, to, codec.ResyncRequest, q); err != nil {
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

// send publishes the newest report on a work, if the broker does not have it.
func (a *Agent) send(ctx context.Context, k Key) error {
	r := a.state.get(k)
	if r == nil || !r.Unsent {
		return nil
	}
	to := brokers.Topic{Lane: brokers.ToSource, Source: k.Source, Cluster: a.cluster, Key: k.ID}
	err := a.publish(ctx, to, codec.Update, r.Report)
	if errors.Is(err, brokers.ErrTooLarge) {
		var short codec.Report
		if short, err = shorten(r); err == nil {
			a.log.Info("report is too large for the broker, sending its conditions only", "source", k.Source, "work", k.ID)
			err = a.publish(ctx, to, codec.Update, a.report(short, r.Report.Sequence))
		}
	}
	if err != nil {
		return err
	}
	// Losing this in a crash costs sending the report again.
	a.state.changeSoon(mutation{decide: func(d *draft) {
		now := d.get(k)
		if now == nil || now.Report.Sequence != r.Report.Sequence {
			return // A newer report is waiting.
		}
		next := *now
		next.Unsent = false
		d.put(k, &next)
	}})
	return nil
}

// shorten is the report without what manifests say each.
func shorten(r *Record) (codec.Report, error) {
	status, err := r.Report.Status()
	if err != nil {
		return codec.Report{}, err
	}
	status.ResourceStatus = workv1.ManifestResourceStatus{}
	return codec.NewReport(r.Bundle, status)
}

func (a *Agent) publish(ctx context.Context, to brokers.Topic, action codec.Action, m codec.Message) error {
	e, err := m.Encode(action)
	if err != nil {
		return fmt.Errorf("encode for %s: %w", to, err)
	}
	err = a.transport.Publish(ctx, to, e)
	publishedTotal.WithLabelValues(result(err)).Inc()
	if err != nil {
		return fmt.Errorf("publish to %s: %w", to, err)
	}
	return nil
}
