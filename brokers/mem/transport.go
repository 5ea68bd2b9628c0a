package mem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// errCut is the reason of connections lost through Options.Cut.
var errCut = errors.New("connection cut while publishing")

// A transport is one identity at one broker.
type transport struct {
	b      *Broker
	config brokers.Config
	id     string
	// will is nil where the broker takes none.
	will *brokers.Will
	log  *slog.Logger

	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelFunc

	// What follows is guarded by b.mu.
	rng *rand.Rand
	// link is nil while there is no connection; up is closed while there is
	// one.
	link    *link
	up      chan struct{}
	connect *time.Timer
	closing bool
	// unconfirmed counts running publishes; confirmed is closed by the last of
	// them once Close waits.
	unconfirmed int
	confirmed   chan struct{}
}

// A link is one connection.
type link struct {
	// lost is closed when the connection is gone, after reason was set.
	lost   chan struct{}
	reason error
	// queues are those that deliver over this connection.
	queues []*queue
}

// connectLaterLocked connects t after a while, if it is not connected.
func (b *Broker) connectLaterLocked(t *transport) {
	if t.link != nil || !b.transports[t] {
		return
	}
	if t.connect != nil {
		t.connect.Stop()
	}
	t.connect = time.AfterFunc(upTo(t.rng, b.opts.Reconnect), func() { b.connect(t) })
}

// connect connects t if that is possible. If it is not, whoever makes it
// possible calls connectLaterLocked.
func (b *Broker) connect(t *transport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.link != nil || !b.transports[t] || !b.running || b.partitioned[t.id] {
		return
	}
	if other := b.clients[t.id]; other != nil {
		// As with MQTT: a client ID has one connection, the newest.
		b.breakLocked(other, errors.New("another connection has the same client ID"))
		b.willLocked(other)
		b.connectLaterLocked(other)
	}
	b.forgetWillLocked(t.id)
	b.clients[t.id] = t
	t.link = &link{lost: make(chan struct{})}
	close(t.up)
	t.log.Info("connected to broker", "client", t.id)
}

// breakLocked ends the connection of t, if it has one.
func (b *Broker) breakLocked(t *transport, reason error) {
	l := t.link
	if l == nil {
		return
	}
	t.link = nil
	t.up = make(chan struct{})
	delete(b.clients, t.id)
	for _, q := range slices.Clone(l.queues) {
		q.detach()
	}
	l.reason = reason
	close(l.lost)
	if !errors.Is(reason, brokers.ErrClosed) {
		t.log.Info("connection to broker lost", "client", t.id, "reason", reason)
	}
}

// upTo draws a duration from 0 to longest.
func upTo(rng *rand.Rand, longest time.Duration) time.Duration {
	if longest <= 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(longest) + 1))
}

// Publish implements [brokers.Transport].
func (t *transport) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	if err := t.publish(ctx, to, e); err != nil {
		return fmt.Errorf("publish to %s: %w", to, err)
	}
	return nil
}

func (t *transport) publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	if err := to.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b := t.b
	refused := b.opts.Refuse != nil && b.opts.Refuse(t.config, to)
	e = e.Clone()

	b.mu.Lock()
	switch {
	case t.closing:
		b.mu.Unlock()
		return brokers.ErrClosed
	case t.link == nil:
		b.mu.Unlock()
		return brokers.ErrUnavailable
	case b.opts.MaxSize > 0 && e.Size() > b.opts.MaxSize:
		b.mu.Unlock()
		return fmt.Errorf("%w: %d bytes are over %d", brokers.ErrTooLarge, e.Size(), b.opts.MaxSize)
	case refused:
		b.mu.Unlock()
		return fmt.Errorf("%w: %s may not publish there", brokers.ErrRefused, t.id)
	}
	l := t.link
	wait := upTo(t.rng, b.opts.Delay)
	// The broker takes the event at the beginning or at the end of the time
	// that its confirmation needs; a connection lost between makes the
	// difference that the publisher does not learn.
	early := t.rng.IntN(2) == 0
	if early {
		b.route(to, e)
	}
	if t.rng.Float64() < b.opts.Cut {
		b.breakLocked(t, errCut)
		b.willLocked(t)
		b.connectLaterLocked(t)
	}
	t.unconfirmed++
	b.mu.Unlock()

	err := t.confirmation(ctx, l, wait)

	b.mu.Lock()
	defer b.mu.Unlock()
	t.unconfirmed--
	if t.unconfirmed == 0 && t.confirmed != nil {
		close(t.confirmed)
	}
	if err != nil {
		return err
	}
	if t.link != l {
		return t.lostLocked(l)
	}
	if !early {
		b.route(to, e)
	}
	return nil
}

// confirmation waits for as long as the broker takes to confirm.
func (t *transport) confirmation(ctx context.Context, l *link, wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.lost:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// lostLocked is what a publisher gets whose connection was lost.
func (t *transport) lostLocked(l *link) error {
	if errors.Is(l.reason, brokers.ErrClosed) {
		return l.reason
	}
	return fmt.Errorf("%w: %w", brokers.ErrUnavailable, l.reason)
}

// Close implements [brokers.Transport].
func (t *transport) Close(ctx context.Context) error {
	b := t.b
	b.mu.Lock()
	if t.closing {
		b.mu.Unlock()
		return fmt.Errorf("close: %w", brokers.ErrClosed)
	}
	t.closing = true
	confirmed := make(chan struct{})
	if t.confirmed = confirmed; t.unconfirmed == 0 {
		close(confirmed)
		t.confirmed = nil
	}
	b.mu.Unlock()

	var err error
	select {
	case <-confirmed:
	case <-ctx.Done():
		err = fmt.Errorf("close with unconfirmed events: %w", ctx.Err())
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakLocked(t, brokers.ErrClosed)
	delete(b.transports, t)
	if t.connect != nil {
		t.connect.Stop()
	}
	t.cancel()
	return err
}
