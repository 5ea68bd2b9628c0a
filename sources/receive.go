package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// handle sorts one event into the queues. It never waits.
func (d *Dispatcher) handle(_ context.Context, in brokers.Delivery) {
	e := in.Event
	packed := codec.Compressed(e)
	if packed {
		e = outside(e)
	}
	_, m, err := codec.Decode(e)
	if err != nil {
		d.reject(in, typeUnknown, undecodable(err), err)
		return
	}
	if _, isReport := m.(codec.Report); packed && !isReport {
		d.reject(in, typeUnknown, resultUnexpected, errors.New("of what agents say only reports may be compressed"))
		return
	}
	switch m := m.(type) {
	case codec.Report:
		if result, err := d.checkReport(in.From, m); err != nil {
			d.reject(in, typeReport, result, err)
			return
		}
		d.seen(in.From.Cluster, sign{})
		d.accept(m, in)
	case codec.SpecResync:
		if result, err := d.checkQuestion(in.From, m); err != nil {
			d.reject(in, typeSpecResync, result, err)
			return
		}
		d.metrics.received(typeSpecResync, resultOK)
		// Nothing said is something, too: an agent of OCM.
		d.seen(in.From.Cluster, sign{agent: m.Agent, capabilities: append([]string{}, m.Capabilities...)})
		d.ask(m, in)
	case codec.Digest:
		d.announced(in, typeDigest, sign{
			agent: m.Agent, instance: m.Instance, capabilities: append([]string{codec.CapDigest}, m.Capabilities...),
		}, func(cluster string) string { d.takeDigest(cluster, m); return resultOK })
	case codec.Entries:
		d.announced(in, typeEntries, sign{agent: m.Agent, instance: m.Instance},
			func(cluster string) string { return d.takeEntries(cluster, m) })
	case codec.Presence:
		if !m.Online {
			d.announced(in, typePresence, sign{}, func(cluster string) string {
				d.left(cluster, m.Instance)
				return resultOK
			})
			return
		}
		d.announced(in, typePresence, sign{agent: m.Agent, instance: m.Instance}, nil)
	default:
		d.reject(in, typeUnknown, resultUnexpected, errors.New("only what agents say is taken here"))
	}
}

// announced takes one of the events that OCM does not have. Cluster and source
// are those of its address. It is settled whatever becomes of it, since its
// agent says it again, but for one on a lane where it has no business. Presence
// may come to all sources: an agent of several has one last will. A sign without
// an instance is none of life. take returns the label of what became of it.
func (d *Dispatcher) announced(in brokers.Delivery, typ string, s sign, take func(cluster string) string) {
	toAll := in.From.Lane == brokers.ToAllSources && typ == typePresence
	if !toAll && (in.From.Lane != brokers.ToSource || in.From.Source != d.id) {
		d.reject(in, typ, resultMismatch, fmt.Errorf("%s on the lane of %s is not for source %q", typ, in.From, d.id))
		return
	}
	result := resultOK
	switch {
	case s.instance != (digest.Key{}) && !d.seen(in.From.Cluster, s):
		result = resultStale
	case take != nil:
		result = take(in.From.Cluster)
	}
	d.metrics.received(typ, result)
	in.Done(nil)
}

// undecodable is the label of an event that cannot be decoded.
func undecodable(err error) string {
	switch {
	case errors.Is(err, codec.ErrUnsupportedVersion):
		return resultUnsupportedVersion
	case errors.Is(err, codec.ErrUnknownType):
		return resultUnknownType
	case errors.Is(err, codec.ErrUnknownEncoding):
		return resultUnknownEncoding
	case errors.Is(err, codec.ErrBomb):
		return resultBomb
	case errors.Is(err, codec.ErrPayloadTooLarge), errors.Is(err, codec.ErrMetadataTooLarge):
		return resultTooLarge
	default:
		return resultMalformed
	}
}

// checkReport holds what a report says of itself against its address. With the
// error comes the label of its kind.
func (d *Dispatcher) checkReport(from brokers.Topic, r codec.Report) (string, error) {
	switch {
	case from.Lane != brokers.ToSource || from.Source != d.id:
		return resultMismatch, fmt.Errorf("a report on the lane of %s is not for source %q", from, d.id)
	case r.Cluster != from.Cluster:
		return resultForeignCluster, fmt.Errorf("it claims cluster %.100q and came from cluster %q", r.Cluster, from.Cluster)
	case r.Source != d.id:
		return resultMismatch, fmt.Errorf("it claims a work of source %.100q and came to source %q", r.Source, d.id)
	}
	return resultOK, nil
}

// checkQuestion is checkReport for a SpecResync, which may be for all sources.
func (d *Dispatcher) checkQuestion(from brokers.Topic, q codec.SpecResync) (string, error) {
	switch {
	case from.Lane != brokers.ToSource && from.Lane != brokers.ToAllSources:
		return resultMismatch, fmt.Errorf("a question on the lane of %s", from)
	case from.Lane == brokers.ToSource && from.Source != d.id:
		return resultMismatch, fmt.Errorf("a question on the lane of %s is not for source %q", from, d.id)
	case q.Cluster != from.Cluster:
		return resultForeignCluster, fmt.Errorf("it claims cluster %.100q and came from cluster %q", q.Cluster, from.Cluster)
	case q.Source != "" && q.Source != d.id:
		return resultMismatch, fmt.Errorf("it asks source %.100q and came to source %q", q.Source, d.id)
	}
	return resultOK, nil
}

// reject drops an event for good, and says so once per cluster and kind.
func (d *Dispatcher) reject(in brokers.Delivery, typ, result string, reason error) {
	d.metrics.received(typ, result)
	d.once.warn(result+in.From.Cluster, "event dropped; further ones like it are only counted",
		"cluster", in.From.Cluster, "result", result, "lane", in.From.Lane.String(), "err", reason)
	d.dropped(in, result, reason)
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
