package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// Open returns a transport for a NATS URL; see the package comment for its
// parameters. It is a [brokers.Driver] for the schemes nats and tls.
func Open(_ context.Context, u *url.URL, c brokers.Config) (brokers.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s, err := parseURL(u, c.Role)
	if err != nil {
		return nil, err
	}
	if err := checkFiles(c); err != nil || c.CheckOnly {
		return nil, err
	}
	t := &transport{
		settings: s,
		config:   c,
		instance: rand.Text(),
		log:      c.Logger().With("broker", brokers.Address(u)),
		window:   make(chan struct{}, s.window),
		changed:  make(chan struct{}),
		down:     errors.New("not connected yet"),
		names:    make(map[string]bool),
		reported: make(map[string]bool),
		stopped:  make(chan struct{}),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.open, t.close = context.WithCancelCause(context.Background())
	go t.run()
	return t, nil
}

// A transport keeps one connection and, while everything that it needs on the
// server is in place, a link over it.
type transport struct {
	settings settings
	config   brokers.Config
	instance string // Tells this process from others with its identity.
	log      *slog.Logger
	window   chan struct{} // Holds one value for each unconfirmed publish.
	refusals refusals

	// open ends when Close is called, and ctx when the connection may go.
	open    context.Context
	close   context.CancelCauseFunc
	ctx     context.Context
	stop    context.CancelFunc
	stopped chan struct{} // Closed when the connection is gone after ctx ended.

	calls sync.WaitGroup // Publish and Subscribe calls under way.

	mu         sync.Mutex
	closed     bool
	up         *link         // Nil while there is none.
	down       error         // Why there is none.
	changed    chan struct{} // Closed and replaced when up changes.
	generation int           // Counts connections lost.
	conn       *natsgo.Conn
	connected  bool // As counted.
	restarts   int
	reported   map[string]bool // What the log has already.
	// names are the consumers that a subscription of this transport uses.
	names map[string]bool
}

// begin counts a call that Close waits for.
func (t *transport) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return brokers.ErrClosed
	}
	t.calls.Add(1)
	return nil
}

// run keeps a connection until the transport is stopped. The client reconnects
// by itself; only what it takes for fatal ends one connection and needs another.
func (t *transport) run() {
	defer close(t.stopped)
	told := ""
	for n := 1; t.ctx.Err() == nil; n++ {
		if err := t.serve(); err != nil && err.Error() != told {
			told = err.Error()
			t.log.Error("connection to the broker failed, a new one follows", "err", err)
		}
		pause(t.ctx, backoff(n))
	}
}

// serve keeps one client connection and makes links on it until it is closed.
func (t *transport) serve() error {
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	gone := make(chan struct{})
	told := "" // The connection error last logged; the client's callbacks take turns.
	nc, err := natsgo.Connect(strings.Join(t.settings.servers, ","), append(
		t.options(),
		natsgo.ConnectHandler(func(nc *natsgo.Conn) {
			told = ""
			t.online(true)
			t.log.Info("connected to broker", "server", nc.ConnectedUrlRedacted())
			poke()
		}),
		natsgo.ReconnectHandler(func(nc *natsgo.Conn) {
			told = ""
			t.online(true)
			reconnects.Inc()
			t.log.Info("reconnected to broker", "server", nc.ConnectedUrlRedacted())
			poke()
		}),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) { t.disconnected(err) }),
		natsgo.ReconnectErrHandler(func(_ *natsgo.Conn, err error) {
			t.unreachable(fmt.Errorf("connect to broker: %w", err))
			if told != err.Error() && t.ctx.Err() == nil {
				told = err.Error()
				t.log.Warn("cannot connect to broker, trying on", "err", err)
			}
		}),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, s *natsgo.Subscription, err error) { t.asyncError(s, err) }),
		natsgo.ClosedHandler(func(*natsgo.Conn) { close(gone) }),
	)...)
	if err != nil {
		return fmt.Errorf("connect to broker: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackTimeout), jetstream.WithPublishAsyncMaxPending(2*maxWindow))
	if err != nil {
		nc.Close()
		return fmt.Errorf("use JetStream: %w", err)
	}
	t.mu.Lock()
	t.conn = nc
	t.mu.Unlock()
	defer func() {
		nc.Close()
		<-gone
		t.online(false)
	}()
	t.linkUp(nc, js, wake, gone, poke)
	reason := errors.New("connection closed")
	if last := nc.LastError(); last != nil {
		reason = last
	}
	t.drop(nil, reason)
	if t.ctx.Err() != nil {
		return nil
	}
	return reason
}

// disconnected is called by the client when a connection was lost.
func (t *transport) disconnected(err error) {
	reason := errors.New("connection to the broker was closed")
	if err != nil {
		reason = fmt.Errorf("connection to the broker was lost: %w", err)
	}
	t.mu.Lock()
	t.generation++
	t.mu.Unlock()
	t.online(false)
	t.drop(nil, reason)
	if t.ctx.Err() == nil {
		t.log.Warn("connection to broker lost", "err", reason)
	}
}

// online counts the connection while it is up. The client does not pair its
// callbacks when it is closed in the middle of a reconnect.
func (t *transport) online(up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case up && !t.connected:
		connected.Inc()
	case !up && t.connected:
		connected.Dec()
	}
	t.connected = up
}

// unreachable notes why there is no link.
func (t *transport) unreachable(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = err
}

// asyncError is called by the client for what the server says unasked.
func (t *transport) asyncError(s *natsgo.Subscription, err error) {
	switch {
	case t.refusals.report(err):
	case errors.Is(err, natsgo.ErrSlowConsumer) && s != nil:
		dropped.WithLabelValues(dropOverflow).Inc()
		t.log.Debug("a subscription was too slow for a broadcast", "subject", s.Subject)
	case errors.Is(err, natsgo.ErrPermissionViolation) && strings.Contains(err.Error(), advisories):
		if t.once(advisories) {
			t.log.Info("broker does not tell which agents are gone: this user may not subscribe to its advisories", "subject", t.settings.advisories())
		}
	case t.once(errorKind(err)):
		t.log.Warn("broker reports an error", "err", err)
	}
}

// errorKind is an error without what differs from one to the next: violations of
// permissions do in the ends of their subjects.
func errorKind(err error) string {
	const tokens = 5
	parts := strings.SplitN(err.Error(), ".", tokens+1)
	return join(parts[:min(tokens, len(parts))]...)
}

// once says whether this is the first time that something is to be logged.
func (t *transport) once(kind string) bool {
	const most = 100
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reported[kind] || len(t.reported) >= most {
		return false
	}
	t.reported[kind] = true
	return true
}

// discard counts what is no event of ours.
func (t *transport) discard(subject, reason string, err error) {
	dropped.WithLabelValues(reason).Inc()
	if t.once(reason) {
		t.log.Warn("dropped a message from the broker; others of this kind are only counted", "subject", subject, "reason", reason, "err", err)
	}
}

// Close implements [brokers.Transport].
func (t *transport) Close(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return brokers.ErrClosed
	}
	t.closed = true
	t.mu.Unlock()
	// Subscriptions hand back what they hold, and publishers get their answers,
	// while the connection is still there.
	t.close(brokers.ErrClosed)
	ended := make(chan struct{})
	go func() {
		t.calls.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
		err = t.flush(ctx)
	case <-ctx.Done():
		err = fmt.Errorf("close connection to broker before all was confirmed: %w", ctx.Err())
	}
	t.stop()
	select {
	case <-t.stopped:
	case <-ctx.Done():
	}
	return err
}

// flush sends acknowledgements that are still in the client's buffer.
func (t *transport) flush(ctx context.Context) error {
	t.mu.Lock()
	nc := t.conn
	t.mu.Unlock()
	if nc == nil || !nc.IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil && nc.IsConnected() {
		return fmt.Errorf("flush connection to broker: %w", err)
	}
	return nil
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
