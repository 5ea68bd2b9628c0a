package agents

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
			a.log.Info("listening to sources", "sources", a.o.Sources, "resumed", s.Resumed)
			a.greet()
		},
		Resume: a.state.position,
		Down: func(err error) {
			a.listening.Store(false)
			a.log.Info("broker is away, going on with what is on disk", "err", err)
		},
	})
}

// greet asks the sources for what was missed, and sends what could not be sent.
func (a *Agent) greet() {
	for _, source := range a.o.Sources {
		a.greeting(source)
	}
	a.askAll()
	a.state.each(func(k Key, r *Record) {
		if r.Unsent {
			a.outbox.Forget(k.Source, k.ID)
			a.outbox.Add(k.Source, k.ID)
		}
	})
}

func (a *Agent) askAll() {
	for _, source := range a.o.Sources {
		a.outbox.Forget(source, "")
		a.outbox.Add(source, "")
	}
}

// handle takes one event from the broker.
func (a *Agent) handle(_ context.Context, d brokers.Delivery) {
	step := a.state.log.arrive(d.Position)
	action, m, err := codec.Decode(d.Event)
	if err != nil {
		a.drop(d, step, reasonOf(err), err)
		return
	}
	switch m := m.(type) {
	case codec.Bundle:
		a.handleBundle(d, step, m)
	case codec.StatusResync:
		a.handleQuestion(d, step, m)
	default:
		// Reports and spec resyncs go to sources.
		a.drop(d, step, "wrong_direction", fmt.Errorf("a %s is not for agents", action))
	}
}

// reasonOf is the label of what Decode says.
func reasonOf(err error) string {
	if errors.Is(err, codec.ErrUnknownType) {
		return "unknown_type"
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
				dr.put(k, waiting(held, b))
			case verdictConfirm:
				next := askedAgain(held, b)
				next.Report, next.Unsent = a.report(next.Report, dr.issue()), true
				dr.put(k, next)
			case verdictDuplicate, verdictStale:
			}
		},
		done: func(err error) {
			if err != nil {
				a.tell("store", "agent's store refuses works, leaving them with the broker", "err", err)
				d.Done(fmt.Errorf("store work %s: %w", b.ID, err))
				return
			}
			a.untell("store")
			eventsTotal.WithLabelValues(string(v)).Inc()
			d.Done(nil)
			switch v {
			case verdictAccept:
				a.log.Debug("work accepted", "source", b.Source, "work", b.ID, "generation", b.Generation, "deleting", b.Deleting())
				a.work.Forget(k.Source, k.ID) // What failed before was another version.
				a.apply(k)
			case verdictConfirm:
				a.outbox.Add(k.Source, k.ID)
			case verdictNext, verdictDuplicate, verdictStale:
			}
		},
	})
}

// handleQuestion answers a source that tells which statuses it holds: what
// differs is sent again, under a new sequence, since the source may ignore one
// that it has seen. Without hashes it holds none, and everything is sent.
//
// That a work is gone is not said to a source that never had a status of a
// work whose ID recurs: it created the work again and that did not come here, and
// OCM's sources would take the confirmation for that of the new one. A source
// that is indeed deleting sends the deletion again when it is asked.
func (a *Agent) handleQuestion(d brokers.Delivery, at *step, q codec.StatusResync) {
	switch {
	case q.Source != d.From.Source:
		a.drop(d, at, "foreign_source", fmt.Errorf("it says it is from source %q", q.Source))
		return
	case q.Cluster != "" && q.Cluster != a.cluster:
		a.drop(d, at, "foreign_cluster", fmt.Errorf("it is for cluster %q", q.Cluster))
		return
	}
	hashes := make(map[string]string, len(q.Hashes))
	for _, h := range q.Hashes {
		hashes[h.ID] = h.Hash
	}
	var send []Key
	a.state.change(mutation{
		step: at,
		decide: func(dr *draft) {
			send = nil
			for _, k := range dr.keys() {
				r := dr.get(k)
				if k.Source != q.Source || r.Report.ID == "" {
					continue
				}
				hash, listed := hashes[k.ID]
				if len(hashes) > 0 && (!listed || hash == r.Report.Hash) || len(hashes) == 0 && r.Gone() {
					continue
				}
				if r.Gone() && recurs(k.ID) && slices.Contains(noStatus, hash) {
					continue
				}
				next := *r
				next.Report, next.Unsent = a.report(r.Report, dr.issue()), true
				dr.put(k, &next)
				send = append(send, k)
			}
		},
		done: func(err error) {
			if err != nil {
				d.Done(fmt.Errorf("answer status resync: %w", err))
				return
			}
			eventsTotal.WithLabelValues("answered").Inc()
			d.Done(nil)
			for _, k := range send {
				a.outbox.Add(k.Source, k.ID)
			}
		},
	})
}

// noStatus are the hashes that sources have for a work without status: that of
// an empty one, and what Maestro says, the SHA-256 of nothing.
var noStatus = []string{
	"3a4ba43801251ccdf889a3154674d23a35ab996aacfc00de92e61dbb2f5cf189",
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
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
