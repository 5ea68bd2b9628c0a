package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// ackTimeout is how long a publish waits for its confirmation. Without it, one
// that the server silently dropped would hold its place in the window for ever.
const ackTimeout = 30 * time.Second

// What a stream answers to headers over 64 KiB, and to a lifetime if it keeps
// all messages for ever.
const (
	codeHeaderTooLarge jetstream.ErrorCode = 10097
	codeTTLDisabled    jetstream.ErrorCode = 10166
)

// Publish implements [brokers.Transport].
func (t *transport) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	err := t.publish(ctx, to, e)
	countPublish(err)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", to, err)
	}
	return nil
}

func (t *transport) publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	if err := to.Validate(); err != nil {
		return err
	}
	if err := e.Validate(); err != nil {
		return err
	}
	subject, err := subject(t.settings.prefix, to)
	if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	defer t.calls.Done()
	m, stream := message(subject, e), t.settings.stream(to.Lane)
	if stream != "" {
		stored(m, e, t.settings.lifetime(e))
	}
	l, err := t.current()
	if err != nil {
		return err
	}
	if err := checkSize(m, l.nc.MaxPayload(), l.maxMessage[stream], stream != ""); err != nil {
		return err
	}
	select {
	case t.window <- struct{}{}:
		defer func() { <-t.window }()
	case <-l.ctx.Done():
		return fmt.Errorf("%w: %w", brokers.ErrUnavailable, context.Cause(l.ctx))
	case <-t.open.Done():
		return brokers.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	refused, stop := t.refusals.watch(subject)
	defer stop()
	if stream == "" {
		return t.broadcast(ctx, l, m, refused)
	}
	return t.store(ctx, l, m, stream, refused)
}

// store publishes into a stream and waits until the stream has it. A stream
// that was not adapted yet gets the message without its lifetime.
func (t *transport) store(ctx context.Context, l *link, m *natsgo.Msg, stream string, refused <-chan error) error {
	err := t.storeOnce(ctx, l, m, stream, refused)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeTTLDisabled {
		endless := natsgo.Msg{Subject: m.Subject, Header: maps.Clone(m.Header), Data: m.Data}
		delete(endless.Header, jetstream.MsgTTLHeader)
		return t.storeOnce(ctx, l, &endless, stream, refused)
	}
	return err
}

func (t *transport) storeOnce(ctx context.Context, l *link, m *natsgo.Msg, stream string, refused <-chan error) error {
	future, err := l.js.PublishMsgAsync(m)
	if err != nil {
		return publishError(err, stream)
	}
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			// Nobody listens there any more; the next link finds out why.
			t.restart(l, fmt.Errorf("%w: %s", errNoStream, stream))
		}
		return publishError(err, stream)
	case err := <-refused:
		return err
	case <-l.ctx.Done():
		return fmt.Errorf("%w before it confirmed: %w", brokers.ErrUnavailable, context.Cause(l.ctx))
	case <-ctx.Done():
		return fmt.Errorf("broker has not confirmed: %w", ctx.Err())
	}
}

// broadcast publishes at most once, and waits until the server has it.
func (t *transport) broadcast(ctx context.Context, l *link, m *natsgo.Msg, refused <-chan error) error {
	before := l.nc.LastError()
	if err := l.nc.PublishMsg(m); err != nil {
		return publishError(err, "")
	}
	flush, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if err := l.nc.FlushWithContext(flush); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return publishError(err, "")
	}
	// A refusal precedes the answer to the flush on the wire, but reaches the
	// error handler on another goroutine, maybe later. The connection's last
	// error stays: an old one says nothing of this event.
	last := l.nc.LastError()
	if subject, ok := violated(last); ok && subject == m.Subject && !same(last, before) {
		return refusedError(subject)
	}
	select {
	case err := <-refused:
		return err
	default:
		return nil
	}
}

// same says whether two errors are one occurrence. The client makes a new value
// for each.
func same(one, other error) bool { return one == other } //nolint:errorlint // Identity is what is asked.

// publishError says by one of the sentinels of package brokers what err means.
func publishError(err error, stream string) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("%w: stream %s is not there yet, a source creates it", brokers.ErrUnavailable, stream)
	case errors.Is(err, natsgo.ErrMaxPayload):
		return fmt.Errorf("%w: %w", brokers.ErrTooLarge, err)
	case errors.As(err, &api):
		if api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum || api.ErrorCode == codeHeaderTooLarge {
			return fmt.Errorf("%w: stream %s: %w", brokers.ErrTooLarge, stream, err)
		}
		return fmt.Errorf("%w: stream %s: %w", brokers.ErrRefused, stream, err)
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return fmt.Errorf("%w: stream %s did not confirm within %s", brokers.ErrUnavailable, stream, ackTimeout)
	default:
		// Lost connections have many names in the client.
		return fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	}
}
