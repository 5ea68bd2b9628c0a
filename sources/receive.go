package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
)

// handle sorts one event into the queues. It never waits.
func (d *Dispatcher) handle(_ context.Context, in brokers.Delivery) {
	_, m, err := codec.Decode(in.Event)
	switch {
	case errors.Is(err, codec.ErrUnknownType):
		d.reject(in, typeUnknown, resultUnknownType, err)
		return
	case err != nil:
		d.reject(in, typeUnknown, resultMalformed, err)
		return
	}
	switch m := m.(type) {
	case codec.Report:
		if err := d.checkReport(in.From, m); err != nil {
			d.reject(in, typeReport, resultMismatch, err)
			return
		}
		d.metrics.received(typeReport, resultOK)
		d.accept(m, in)
	case codec.SpecResync:
		if err := d.checkQuestion(in.From, m); err != nil {
			d.reject(in, typeSpecResync, resultMismatch, err)
			return
		}
		d.metrics.received(typeSpecResync, resultOK)
		d.ask(m, in)
	default:
		d.reject(in, typeUnknown, resultUnexpected, errors.New("only reports and questions of agents are taken here"))
	}
}

// checkReport holds what a report says of itself against its address.
func (d *Dispatcher) checkReport(from brokers.Topic, r codec.Report) error {
	switch {
	case from.Lane != brokers.ToSource || from.Source != d.id:
		return fmt.Errorf("a report on the lane of %s is not for source %q", from, d.id)
	case r.Cluster != from.Cluster:
		return fmt.Errorf("it claims cluster %.100q and came from cluster %q", r.Cluster, from.Cluster)
	case r.Source != d.id:
		return fmt.Errorf("it claims a work of source %.100q and came to source %q", r.Source, d.id)
	}
	return nil
}

// checkQuestion is checkReport for a SpecResync, which may be for all sources.
func (d *Dispatcher) checkQuestion(from brokers.Topic, q codec.SpecResync) error {
	switch {
	case from.Lane != brokers.ToSource && from.Lane != brokers.ToAllSources:
		return fmt.Errorf("a question on the lane of %s", from)
	case from.Lane == brokers.ToSource && from.Source != d.id:
		return fmt.Errorf("a question on the lane of %s is not for source %q", from, d.id)
	case q.Cluster != from.Cluster:
		return fmt.Errorf("it claims cluster %.100q and came from cluster %q", q.Cluster, from.Cluster)
	case q.Source != "" && q.Source != d.id:
		return fmt.Errorf("it asks source %.100q and came to source %q", q.Source, d.id)
	}
	return nil
}

// reject drops an event for good, and says so once per cluster and kind.
func (d *Dispatcher) reject(in brokers.Delivery, typ, result string, reason error) {
	d.metrics.received(typ, result)
	d.once.warn(result+in.From.Cluster, "event dropped; further ones like it are only counted",
		"cluster", in.From.Cluster, "result", result, "lane", in.From.Lane.String(), "err", reason)
	in.Done(fmt.Errorf("%w: %w", brokers.ErrReject, reason))
}

// maxNotes bounds what notes remembers: a fleet's worth of clusters with a few
// facts each.
const maxNotes = 10000

// notes logs each fact once. When it remembers maxNotes facts, new ones go to
// the debug level only.
type notes struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]struct{}
}

// warn logs the fact named by key the first time it is called for it.
func (n *notes) warn(key, msg string, args ...any) {
	n.mu.Lock()
	_, seen := n.seen[key]
	first := !seen && len(n.seen) < maxNotes
	if first {
		if n.seen == nil {
			n.seen = map[string]struct{}{}
		}
		n.seen[key] = struct{}{}
	}
	n.mu.Unlock()
	if first {
		n.log.Warn(msg, args...)
		return
	}
	n.log.Debug(msg, args...)
}
