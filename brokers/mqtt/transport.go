package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// stuckAfter is how long a broker may confirm nothing of what it was given, on
// a connection that is otherwise alive, before the connection is renewed.
const stuckAfter = time.Minute

// drainTime is how long a connection that is renewed waits for confirmations,
// goodbyeTime how long the broker may take to hang up.
const (
	drainTime   = 5 * time.Second
	goodbyeTime = 5 * time.Second
)

// forever stands for paho's own time limit on answers: publishers have a
// context, the connection has its keepalive, and subscriptions have theirs.
const forever = 365 * 24 * time.Hour

type transport struct {
	options

	config      brokers.Config
	credentials *credentials
	will        *will // Nil for none.
	log         *slog.Logger
	pacer       pacer
	keeper      keeper
	manager     *autopaho.ConnectionManager

	// closing ends with Close.
	closing    context.Context
	endClosing context.CancelFunc
	background sync.WaitGroup

	mu sync.Mutex
	// link is the connection that can be used, if any; see usable.
	link *link
	// changed is closed and replaced when there is another link.
	changed chan struct{}
	subs    []*subscription
	session inventory
	// limit is the packet size above which the broker hung up, 0 if it never
	// did.
	limit int
	// unavailable says why there is no link.
	unavailable error
	// told is what the log said last about the connection.
	told   string
	everUp bool
	// toldDrop holds the reasons of drops that the log knows.
	toldDrop map[string]bool
}

var errNotYetConnected = errors.New("not connected yet")

// Open is a [brokers.Driver] for mqtt and mqtts URLs.
func Open(_ context.Context, u *url.URL, c brokers.Config) (brokers.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o, err := parseURL(u, c.Role)
	if err != nil {
		return nil, err
	}
	if err := o.validate(c); err != nil {
		return nil, err
	}
	will, err := o.newWill(c.Will)
	if err != nil {
		return nil, err
	}
	secrets := newCredentials(o, c)
	if err := secrets.check(o.tls); err != nil || c.CheckOnly {
		return nil, err
	}
	t := newTransport(o, c, secrets)
	t.will = will
	// What there is to tell after Open outlives its context.
	t.manager, err = autopaho.NewConnection(context.Background(), t.clientConfig())
	if err != nil {
		t.endClosing()
		return nil, fmt.Errorf("start MQTT client: %w", err)
	}
	if c.CertFile != "" {
		t.background.Go(t.watchCertificate)
	}
	return t, nil
}

func newTransport(o options, c brokers.Config, secrets *credentials) *transport {
	t := &transport{
		options: o, config: c, credentials: secrets,
		log:         c.Logger().With("broker", o.address, "client", c.Identity()),
		changed:     make(chan struct{}),
		unavailable: errNotYetConnected,
		toldDrop:    make(map[string]bool),
	}
	t.keeper.up, t.keeper.lost = t.up, t.lost
	t.closing, t.endClosing = context.WithCancel(context.Background())
	return t
}

// Publish implements [brokers.Transport].
func (t *transport) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	unheard, err := t.publish(ctx, to, e)
	countPublish(err, unheard)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", to, err)
	}
	return nil
}

func (t *transport) publish(ctx context.Context, to brokers.Topic, e event.Event) (unheard bool, err error) {
	if err := to.Validate(); err != nil {
		return false, err
	}
	p, err := encode(t.topics.topic(to), e)
	if err != nil {
		return false, err
	}
	size := packetSize(p)
	l, most, err := t.usable()
	switch {
	case errors.Is(err, brokers.ErrClosed):
		return false, err
	case size > most:
		return false, tooLarge(size, most)
	case err != nil:
		return false, err
	}

	answer, err := t.manager.Publish(outgoing{l, size}.context(ctx), p)
	switch {
	case answer != nil && answer.ReasonCode == packetTooLarge:
		return false, fmt.Errorf("%w: it has %d bytes: %s", brokers.ErrTooLarge, size, answerString(answer))
	case answer != nil && answer.ReasonCode >= refused:
		return false, fmt.Errorf("%w: %s", brokers.ErrRefused, answerString(answer))
	case answer != nil && answer.ReasonCode == noMatchingSubscribers:
		t.log.Debug("nobody subscribes to a published event", "topic", p.Topic)
		return true, nil
	case err == nil:
		return false, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, paho.ErrInvalidArguments):
		return false, fmt.Errorf("%w: %w", brokers.ErrRefused, err)
	}
	// What became of it is unknown, unless the broker told by hanging up.
	_, most, err = t.usable()
	switch {
	case errors.Is(err, brokers.ErrClosed):
		return false, err
	case size > most:
		return false, tooLarge(size, most)
	}
	return false, fmt.Errorf("%w: %w before the event was confirmed", brokers.ErrUnavailable, errConnectionLost)
}

func tooLarge(size, most int) error {
	return fmt.Errorf("%w: it has %d bytes, the limit is %d", brokers.ErrTooLarge, size, most)
}

func answerString(r *paho.PublishResponse) string {
	said := ""
	if r.Properties != nil {
		said = r.Properties.ReasonString
	}
	return describe(r.ReasonCode, said)
}

// usable returns the connection, or an error that wraps ErrUnavailable or
// ErrClosed, and in any case the largest packet that may be sent.
func (t *transport) usable() (l *link, maxPacket int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maxPacket = t.maxPacket
	if t.limit > 0 {
		maxPacket = min(maxPacket, t.limit)
	}
	switch {
	case t.closing.Err() != nil:
		return nil, maxPacket, brokers.ErrClosed
	case t.link == nil || !t.link.alive():
		return nil, maxPacket, fmt.Errorf("%w: %s: %w", brokers.ErrUnavailable, t.address, t.unavailable)
	}
	return t.link, min(maxPacket, t.link.maxPacket), nil
}

// Close implements [brokers.Transport].
func (t *transport) Close(ctx context.Context) error {
	t.mu.Lock()
	l, closed := t.link, t.closing.Err() != nil
	t.endClosing()
	t.mu.Unlock()
	if closed {
		return brokers.ErrClosed
	}
	var err error
	if l != nil {
		if err = l.drain(ctx); !l.alive() {
			err = nil // The publishers have been told.
		}
		goodbye, cancel := context.WithTimeout(ctx, goodbyeTime)
		l.disconnect(goodbye, normalDisconnection)
		cancel()
	}
	_ = t.manager.Disconnect(ctx)
	<-t.manager.Done()
	t.background.Wait()
	if err != nil {
		return fmt.Errorf("close connection to broker %s with events unconfirmed: %w", t.address, err)
	}
	return nil
}

// up makes a link of a connection that the broker has accepted.
func (t *transport) up(conn io.Writer, connack *packets.Connack) *link {
	window, most := t.window, t.maxPacket
	if p := connack.Properties; p != nil {
		if p.ReceiveMaximum != nil && *p.ReceiveMaximum > 0 {
			window = min(window, int(*p.ReceiveMaximum))
		}
		if p.MaximumPacketSize != nil && *p.MaximumPacketSize > 0 {
			most = min(most, int(*p.MaximumPacketSize))
		}
	}
	l := newLink(conn, connack.SessionPresent, window, most)
	t.pacer.up(time.Now())
	connected.Inc()

	t.mu.Lock()
	defer t.mu.Unlock()
	t.session.connected(connack.SessionPresent, !t.everUp)
	t.tellLocked("up", slog.LevelInfo, "connected to broker", "resumed", connack.SessionPresent, "window", window, "max_packet", most)
	if t.everUp {
		reconnects.Inc()
	} else if p := connack.Properties; p != nil && p.SessionExpiryInterval != nil {
		if granted := time.Duration(*p.SessionExpiryInterval) * time.Second; granted < t.sessionExpiry {
			t.log.Info("the broker keeps the session for less time than asked", "asked", t.sessionExpiry, "granted", granted)
		}
	}
	t.everUp = true
	t.background.Go(func() {
		l.serve(stuckAfter, func() { t.renew(l, "the broker stopped confirming events") })
	})
	return l
}

// use opens a link for publishers and subscriptions, once paho is ready.
func (t *transport) use() {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.keeper.link.Load()
	if l == nil || !l.alive() {
		return
	}
	t.link = l
	close(t.changed)
	t.changed = make(chan struct{})
}

// lost undoes what was tied to a link.
func (t *transport) lost(l *link, err error) {
	connected.Dec()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == l {
		t.link = nil
	}
	t.unavailable = err
	t.forgetLocked(l)
	var d *disconnectError
	switch {
	case t.closing.Err() != nil:
	case l.renewing != "":
		t.tellLocked("renewing", slog.LevelInfo, "renewing connection to broker", "reason", l.renewing)
	case errors.As(err, &d):
		t.disconnectedLocked(l, d)
	case l.cut():
		if pause := t.pacer.cut(time.Now()); pause > 0 {
			t.tellLocked("cut", slog.LevelError, "the broker keeps ending the connection without a reason, as some do when another client has the same client ID; waiting before connecting again",
				"at_least", pause, "advice", advice(sessionTakenOver))
			return
		}
		fallthrough
	default:
		t.tellLocked("lost", slog.LevelWarn, "lost connection to broker, connecting again", "err", err)
	}
}

// disconnectedLocked draws the consequences of what the broker said.
func (t *transport) disconnectedLocked(l *link, d *disconnectError) {
	args := []any{"err", d}
	if a := advice(d.code); a != "" {
		args = append(args, "advice", a)
	}
	switch d.code {
	case sessionTakenOver:
		pause := t.pacer.takenOver(time.Now())
		t.tellLocked("taken over", slog.LevelError, "another client connected with the same client ID and took over the session; waiting before taking it back",
			append(args, "at_least", pause)...)
		return
	case notAuthorized, banned, useAnotherServer, serverMoved:
		t.pacer.atLeast(refusedPause)
	case packetTooLarge:
		// Some event was over the limit, so the largest is. Those who published
		// smaller ones try again, and this one is not sent again.
		if largest := l.largest(); largest > 0 && (t.limit == 0 || largest <= t.limit) {
			t.limit = largest - 1
			t.log.Warn("the broker hung up on an event over its size limit, which it had not announced; larger events will not be sent", "limit", t.limit)
		}
	}
	t.tellLocked("lost "+d.Error(), slog.LevelWarn, "lost connection to broker, connecting again", args...)
}

// tellLocked logs a change in the state of the connection, once.
func (t *transport) tellLocked(state string, level slog.Level, msg string, args ...any) {
	if t.told == state {
		return
	}
	t.told = state
	t.log.Log(context.Background(), level, msg, args...)
}

// renew ends a connection in an orderly way and connects again at once. The
// session stays with the broker, which sends again what was not acknowledged.
func (t *transport) renew(l *link, why string) {
	ctx, cancel := context.WithTimeout(t.closing, drainTime)
	defer cancel()
	_ = l.drain(ctx)
	if t.closing.Err() != nil || !l.alive() {
		return
	}
	t.mu.Lock()
	l.renewing = why
	t.mu.Unlock()
	t.pacer.atOnce()
	goodbye, cancel := context.WithTimeout(t.closing, goodbyeTime)
	defer cancel()
	reason := byte(normalDisconnection)
	if t.will != nil && t.config.Will.Delay > 0 {
		// Should we not be back in time, the will is true.
		reason = disconnectWithWill
	}
	l.disconnect(goodbye, reason)
}

// watchCertificate renews the connection when the client certificate on disk
// is another than the one in use: brokers look at it only in the handshake, and
// some hang up when it expires.
func (t *transport) watchCertificate() {
	tick := time.NewTicker(t.reload)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-t.closing.Done():
			return
		case <-tick.C:
		}
		replaced, err := t.credentials.replaced()
		if err != nil {
			// Files are replaced one after the other, so this may pass.
			if told != err.Error() {
				told = err.Error()
				t.log.Warn("cannot use the client certificate on disk, keeping the connection with the one before", "err", err)
			}
			continue
		}
		told = ""
		if !replaced {
			continue
		}
		if l, _, err := t.usable(); err == nil {
			t.renew(l, "the client certificate was replaced")
		}
	}
}
