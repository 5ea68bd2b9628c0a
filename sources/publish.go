package sources

import (
	"context"
	"errors"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

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
	a := d.answering(k)
	if d.parked(k.Cluster) {
		d.works.Forget(k.Cluster, k)
		d.answered(k, a)
		return
	}
	b, held, err := d.source.Bundle(ctx, k)
	if err != nil {
		if errors.Is(err, ErrWithheld) {
			d.withhold(k, b.Generation, err)
			d.answered(k, a)
			return
		}
		if unsendable(err) {
			d.refuse(k, b.Generation, err)
			d.answered(k, a)
			return
		}
		d.retryWork(ctx, k, a, "work cannot be read, trying again", err)
		return
	}
	if !held {
		d.forget(k)
		d.land(k)
		d.answered(k, a)
		return
	}
	d.read(k, b.Generation)
	e, err := b.Encode(action(b, a != nil))
	if err != nil {
		d.refuse(k, b.Generation, err)
		d.answered(k, a)
		return
	}

	to := brokers.Topic{Lane: brokers.ToCluster, Source: d.id, Cluster: k.Cluster, Key: k.ID}
	switch err := d.publishBundle(ctx, to, e); {
	case err == nil:
		d.forget(k)
		d.answered(k, a)
		d.sent(k, b.Generation)
		d.published(k.Cluster)
		d.tell(k, outcome{generation: b.Generation})
	case errors.Is(err, brokers.ErrUnavailable):
		d.works.Add(k.Cluster, k) // Waits behind the gate.
	case errors.Is(err, brokers.ErrTooLarge), errors.Is(err, brokers.ErrInvalidTopic):
		d.refuse(k, b.Generation, err)
		d.answered(k, a)
	default:
		d.retryWork(ctx, k, a, "work cannot be published, trying again", err)
		if errors.Is(err, brokers.ErrRefused) {
			d.refusedByBroker(k, b.Generation, err)
		}
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

// retryWork queues a work again that an answer may have waited for.
func (d *Dispatcher) retryWork(ctx context.Context, k Key, a *answer, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	d.answered(k, a)
	wait := d.works.Retry(k.Cluster, k)
	// One cluster without permissions has one line, not one per work.
	d.once.warn(what+k.Cluster, what, "cluster", k.Cluster, "id", k.ID, "err", err, "after", wait)
}

// forget drops what is remembered of the last attempts to send a work.
func (d *Dispatcher) forget(k Key) {
	d.works.Forget(k.Cluster, k)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.refused, k)
}
