package agents

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// subscribe listens to the agent's sources until ctx ends.
func (a *Agent) subscribe(ctx context.Context) error {
	var filters []brokers.Filter
	for _, source := range a.o.Sources {
		filters = append(
			filters,
			brokers.Filter{Lane: brokers.ToCluster, Source: source, Cluster: a.cluster},
			brokers.Filter{Lane: brokers.ToAllClusters, Source: source},
		)
	}
	return a.transport.Subscribe(ctx, brokers.Subscription{
		Filters: filters,
		Handle:  a.handle,
		Ready: func(s brokers.Session) {
			a.state.log.restart()
			a.listening.Store(true)
			sessionsTotal.WithLabelValues(strconv.FormatBool(s.Resumed)).Inc()
			a.log.Info("listening to sources", "sources", a.o.Sources, "resumed", s.Resumed)
			a.greet()
		},
		Resume: a.state.position,
		Down: func(err error) {
			a.listening.Store(false)
			for _, d := range a.dialogues {
				d.down()
			}
			a.log.Info("broker is away, going on with what is on disk", "err", err)
		},
	})
}

// greet compares with the sources what was missed, and sends what could not be
// sent.
func (a *Agent) greet() {
	for source, d := range a.dialogues {
		a.greeting(source)
		d.established(time.Now())
	}
	a.askAll()
	a.state.unsent(func(k Key) {
		a.outbox.Forget(k.Source, reportOn(k))
		a.queueReport(k)
	})
}

// askAll asks the sources that do not know digests.
func (a *Agent) askAll() {
	for source, d := range a.dialogues {
		if !d.isCapable() {
			a.outbox.Forget(source, outgoing{what: kindList})
			a.outbox.Add(source, outgoing{what: kindList})
		}
	}
}

// handle takes one event from the broker.
func (a *Agent) handle(ctx context.Context, d brokers.Delivery) {
	step := a.state.log.arrive(d.Position)
	if _, ours := a.dialogues[d.From.Source]; !ours {
		a.drop(d, step, "foreign_source", errors.New("it is from a source that this agent does not serve"))
		return
	}
	if codec.Compressed(d.Event) {
		var ok bool
		if d, ok = a.lendMemory(ctx, d); !ok {
			return
		}
		plain, ok := a.unpack(d, step)
		if !ok {
			return
		}
		d.Event = plain
	}
	action, m, err := codec.Decode(d.Event)
	if err != nil {
		a.refuse(d, step, err)
		return
	}
	switch m := m.(type) {
	case codec.Bundle:
		a.handleBundle(d, step, m)
	case codec.StatusResync:
		a.handleQuestion(d, step, m)
	case codec.Hello:
		a.handleHello(d, step, m)
	case codec.Match:
		a.handleMatch(d, step, m)
	case codec.Buckets:
		a.handleBuckets(d, step, m)
	default:
		// The others go to sources.
		a.drop(d, step, "wrong_direction", fmt.Errorf("a %s is not for agents", action))
	}
}

// reasonOf is the label of what Decode says.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, codec.ErrUnknownType):
		return "unknown_type"
	case errors.Is(err, codec.ErrUnsupportedVersion):
		return "unsupported_version"
	case errors.Is(err, codec.ErrUnknownEncoding):
		return "unknown_encoding"
	case errors.Is(err, codec.ErrBomb):
		return "bomb"
	case errors.Is(err, codec.ErrPayloadTooLarge), errors.Is(err, codec.ErrMetadataTooLarge):
		return "too_large"
	}
	return "malformed"
}

// drop refuses an event for good. Its kind is told once, every one is counted.
func (a *Agent) drop(d brokers.Delivery, at *step, reason string, err error) {
	eventsTotal.WithLabelValues(reason).Inc()
	a.tell("drop "+reason+" "+d.From.Source, "event dropped; more of its kind are counted only",
		"reason", reason, "from", d.From.String(), "event", d.Event.Get(event.ID), "err", err)
	a.state.log.pass(at) // The next commit takes it along.
	d.Done(fmt.Errorf("%w: %w", brokers.ErrReject, err))
}

func (a *Agent) handleBundle(d brokers.Delivery, at *step, b codec.Bundle) {
	switch {
	case b.Source != d.From.Source:
		a.drop(d, at, "foreign_source", fmt.Errorf("it says it is from source %q", b.Source))
		return
	case b.Cluster != a.cluster:
		a.drop(d, at, "foreign_cluster", fmt.Errorf("it is for cluster %q", b.Cluster))
		return
	}
	k, sent := Key{b.Source, b.ID}, sentAt(d.Event)
	var v verdict
	a.state.change(mutation{
		step: at,
		decide: func(dr *draft) {
			held := dr.get(k)
			v = judge(held, b, sent)
			switch v {
			case verdictAccept:
				dr.put(k, accepted(held, b, sent))
			case verdictNext:
				dr.put(k, waiting(held, b, sent))
			case verdictConfirm:
				next := askedAgain(held, b)
				dr.put(k, next.with(a.report(next.Report, dr.issue(k.Source))))
			case verdictDuplicate, verdictStale:
			}
		},
		done: func(err error) {
			if err != nil {
				a.tell("store", "agent's store refuses works, leaving them with the broker", "source", b.Source, "work", b.ID, "name", nameOf(b), "err", err)
				d.Done(fmt.Errorf("store work %s: %w", b.ID, err))
				return
			}
			a.untell("store")
			eventsTotal.WithLabelValues(string(v)).Inc()
			d.Done(nil)
			switch v {
			case verdictAccept:
				a.log.Debug("work accepted", "source", b.Source, "work", b.ID, "name", a.state.name(k), "generation", b.Generation, "deleting", b.Deleting(), "trace", b.TraceValue())
				a.arrive(k, b.Generation, sent)
				a.work.Forget(k.Source, k.ID) // What failed before was another version.
				a.apply(k)
			case verdictConfirm:
				a.queueReport(k)
			case verdictNext, verdictDuplicate, verdictStale:
			}
		},
	})
}

// sentAt is the source's time of an event; without one, nothing can be said to
// have been sent after anything.
func sentAt(e event.Event) time.Time {
	t, err := event.ParseTime(e.Get(event.Time))
	if err != nil {
		return time.Time{}
	}
	return t
}

// tell logs a fact once, until untell says that it is over. The number of
// facts is bounded: reasons and sources are few.
func (a *Agent) tell(fact, message string, args ...any) {
	a.mu.Lock()
	told := a.seen[fact]
	a.seen[fact] = true
	a.mu.Unlock()
	if !told {
		a.log.Warn(message, args...)
	}
}

func (a *Agent) untell(fact string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.seen, fact)
}
