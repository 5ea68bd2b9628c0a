package sources

import (
	"context"
	"errors"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A refusal remembers what of a work could not be sent, and in which session
// with the broker: another session may have other limits.
type refusal struct {
	generation int64
	reason     string
	session    int
}

func (d *Dispatcher) publishWorks(ctx context.Context) {
	for d.gate.wait(ctx) {
		cluster, k, ok := d.works.Get(ctx)
		if !ok {
			return
		}
		d.publishWork(ctx, k)
		d.works.Done(cluster, k)
	}
}

// publishWork sends the newest state of one work. Whatever goes wrong, the key
// is queued again, or the work is refused until it changes.
func (d *Dispatcher) publishWork(ctx context.Context, k Key) {
	b, held, err := d.source.Bundle(ctx, k)
	if err != nil {
		if unsendable(err) {
			d.refuse(ctx, k, b.Generation, err)
			return
		}
		d.retryWork(ctx, k, "work cannot be read, trying again", err)
		return
	}
	if !held {
		d.forget(k)
		return
	}
	d.mu.Lock()
	_, answer := d.answering[k]
	d.mu.Unlock()
	e, err := b.Encode(action(b, answer))
	if err != nil {
		d.refuse(ctx, k, b.Generation, err)
		return
	}

	to := brokers.Topic{Lane: brokers.ToCluster, Source: d.id, Cluster: k.Cluster, Key: k.ID}
	switch err := d.publish(ctx, to, typeBundle, e); {
	case err == nil:
		d.sent(ctx, k, b.Generation)
	case errors.Is(err, brokers.ErrUnavailable):
		d.works.Add(k.Cluster, k) // Waits behind the gate.
	case errors.Is(err, brokers.ErrTooLarge), errors.Is(err, brokers.ErrInvalidTopic):
		d.refuse(ctx, k, b.Generation, err)
	default:
		d.retryWork(ctx, k, "work cannot be published, trying again", err)
	}
}

// publish sends one event, counts it, and shuts the gate if the broker is away.
func (d *Dispatcher) publish(ctx context.Context, to brokers.Topic, typ string, e event.Event) error {
	epoch, start := d.gate.epoch(), time.Now()
	err := d.transport.Publish(ctx, to, e)
	if ctx.Err() == nil {
		d.metrics.published(typ, e.Size(), time.Since(start), err)
	}
	if errors.Is(err, brokers.ErrUnavailable) {
		d.gate.shut(epoch)
	}
	return err
}

// unsendable says that a source cannot make a bundle of a work as it is.
func unsendable(err error) bool {
	return errors.Is(err, codec.ErrMalformed) || errors.Is(err, codec.ErrGenerationRange) ||
		errors.Is(err, codec.ErrMetadataTooLarge) || errors.Is(err, codec.ErrPayloadTooLarge)
}

func (d *Dispatcher) retryWork(ctx context.Context, k Key, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	wait := d.works.Retry(k.Cluster, k)
	// One cluster without permissions has one line, not one per work.
	d.once.warn(what+k.Cluster, what, "cluster", k.Cluster, "id", k.ID, "err", err, "after", wait)
}

// sent notes that the broker has this generation of a work.
func (d *Dispatcher) sent(ctx context.Context, k Key, generation int64) {
	d.forget(k)
	refuser, ok := d.source.(Refuser)
	if !ok {
		return
	}
	if err := refuser.Refused(ctx, k, generation, nil); err != nil {
		d.retryWork(ctx, k, "work was sent, which its source could not note; trying again", err)
	}
}

// forget drops what is remembered of the last attempts to send a work.
func (d *Dispatcher) forget(k Key) {
	d.works.Forget(k.Cluster, k)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.answering, k)
	delete(d.refused, k)
}

// refuse gives a work up until it changes, and tells the source why once per
// generation and reason.
func (d *Dispatcher) refuse(ctx context.Context, k Key, generation int64, reason error) {
	d.works.Forget(k.Cluster, k)
	d.mu.Lock()
	last, known := d.refused[k]
	now := refusal{generation: generation, reason: reason.Error(), session: d.sessions}
	d.refused[k] = now
	delete(d.answering, k)
	d.mu.Unlock()
	if known && last.generation == now.generation && last.reason == now.reason {
		return
	}
	d.metrics.refused.Inc()
	d.log.Warn("work cannot be sent to its cluster until it is changed", "cluster", k.Cluster, "id", k.ID,
		"generation", generation, "err", reason)
	refuser, ok := d.source.(Refuser)
	if !ok {
		return
	}
	if err := refuser.Refused(ctx, k, generation, reason); err != nil {
		d.mu.Lock()
		delete(d.refused, k) // The source shall hear of it.
		d.mu.Unlock()
		d.retryWork(ctx, k, "work cannot be sent, which its source could not note; trying again", err)
	}
}

// givenUp says that sending this generation again in this session with the
// broker would fail as it did before.
func (d *Dispatcher) givenUp(k Key, generation int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.refused[k]
	return ok && generation != 0 && r.generation == generation && r.session == d.sessions
}
