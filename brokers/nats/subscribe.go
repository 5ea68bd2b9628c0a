package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// broadcastQueue is how many broadcasts may wait for a subscriber before the
// client drops them.
const broadcastQueue = 1024

// A subscription is one call of Subscribe.
type subscription struct {
	brokers.Subscription

	t       *transport
	filters map[brokers.Lane][]brokers.Filter
	names   map[brokers.Lane]string // Of consumers.
	held    map[brokers.Lane]*held
	// places are those of the streams when the subscription was last established.
	places map[brokers.Lane]string
	// mine are the lanes whose consumers were established and not lost to
	// another process since.
	mine      map[brokers.Lane]bool
	takeovers int    // By other processes, not long ago.
	told      string // The failure last logged.
}

// Subscribe implements [brokers.Transport].
func (t *transport) Subscribe(ctx context.Context, s brokers.Subscription) error {
	if len(s.Filters) == 0 {
		return fmt.Errorf("%w: a subscription without filters", brokers.ErrInvalidTopic)
	}
	sub := &subscription{
		Subscription: s,
		t:            t,
		filters:      make(map[brokers.Lane][]brokers.Filter),
		names:        make(map[brokers.Lane]string),
		held:         make(map[brokers.Lane]*held),
		places:       make(map[brokers.Lane]string),
		mine:         make(map[brokers.Lane]bool),
	}
	for _, f := range s.Filters {
		if err := f.Validate(); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		sub.filters[f.Lane] = append(sub.filters[f.Lane], f)
	}
	if err := t.begin(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer t.calls.Done()
	ctx, cancel := joined(ctx, t.open)
	defer cancel()
	defer sub.end()
	for n := 1; ; n++ {
		l, err := t.await(ctx)
		if err == nil {
			var established bool
			if established, err = sub.once(ctx, l); established {
				n = 0
			}
		}
		if ctx.Err() != nil {
			if errors.Is(context.Cause(ctx), brokers.ErrClosed) {
				return fmt.Errorf("subscribe: %w", brokers.ErrClosed)
			}
			return nil
		}
		if errors.Is(err, errTakenOver) {
			sub.giveWay(ctx)
			continue
		}
		if errors.Is(err, errNoStream) {
			t.restart(l, err)
		}
		if l.ctx.Err() == nil {
			sub.tell(err)
			pause(ctx, backoff(n))
		}
	}
}

// tell logs why a subscription is not established, once.
func (s *subscription) tell(err error) {
	if err.Error() != s.told {
		s.told = err.Error()
		s.t.log.Warn("subscription is not established, trying on", "err", err)
	}
}

// once establishes the subscription and serves it until ctx or the link ends,
// or something that it needs is lost.
func (s *subscription) once(ctx context.Context, l *link) (established bool, reason error) {
	e := &establishment{s: s, l: l, in: make(chan brokers.Delivery)}
	defer e.close()
	linked, cancel := joined(ctx, l.ctx)
	defer cancel()
	resumed, err := e.open(linked, l)
	if err != nil {
		return false, cause(linked, err)
	}
	if linked.Err() != nil {
		return false, context.Cause(linked)
	}
	s.told = ""
	if s.Ready != nil {
		s.Ready(brokers.Session{Resumed: resumed})
	}
	since := time.Now()
	reason = e.serve(ctx, linked)
	if time.Since(since) > takenOverMost {
		s.takeovers = 0
	}
	return true, reason
}

// name returns the name of the consumer of a lane. It is the same for the life
// of the subscription, and no other subscription of the transport has it.
func (s *subscription) name(lane brokers.Lane, filters []brokers.Filter) string {
	if name, ok := s.names[lane]; ok {
		return name
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	stream, first := s.t.settings.stream(lane), consumerName(s.t.config, cover(filters), filters)
	name := first
	for n := 2; s.t.names[stream+"/"+name]; n++ {
		name = first + "-" + strconv.Itoa(n)
	}
	s.t.names[stream+"/"+name] = true
	s.names[lane] = name
	return name
}

// newHeld starts over with a new consumer.
func (s *subscription) newHeld(lane brokers.Lane) *held {
	if h := s.held[lane]; h != nil {
		h.forget()
	}
	s.held[lane] = newHeld(time.Time{})
	return s.held[lane]
}

// keptHeld returns what the consumer created at that time has delivered.
func (s *subscription) keptHeld(lane brokers.Lane, created time.Time) *held {
	if h := s.held[lane]; h == nil || !h.created.Equal(created) {
		s.newHeld(lane).created = created
	}
	return s.held[lane]
}

// end leaves to the broker what is not settled.
func (s *subscription) end() {
	for _, h := range s.held {
		h.end()
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for lane, name := range s.names {
		delete(s.t.names, s.t.settings.stream(lane)+"/"+name)
	}
}

// An establishment is what a subscription has on one link.
type establishment struct {
	s          *subscription
	l          *link
	consumers  []*consumer
	broadcasts []*natsgo.Subscription
	messages   chan *natsgo.Msg
	advisories chan *natsgo.Msg // Nil where nobody wants to hear of them.
	in         chan brokers.Delivery
}

// open sets up everything that the filters need. It says whether all stored
// lanes go on where the subscriber left off.
func (e *establishment) open(ctx context.Context, l *link) (resumed bool, err error) {
	e.messages = make(chan *natsgo.Msg, broadcastQueue)
	if err := e.openAdvisories(l); err != nil {
		return false, fmt.Errorf("subscribe to advisories: %w", err)
	}
	stored, resumed := false, true
	for lane, filters := range e.s.filters {
		if e.s.t.settings.stream(lane) == "" {
			if err := e.openBroadcasts(l, filters); err != nil {
				return false, err
			}
			continue
		}
		c, goesOn, err := e.s.openConsumer(ctx, l, filters)
		if err != nil {
			return false, err
		}
		e.consumers = append(e.consumers, c)
		stored, resumed = true, resumed && goesOn
	}
	if len(e.broadcasts) > 0 {
		// The server must know of them before anybody is told to be ready.
		flush, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		if err := l.nc.FlushWithContext(flush); err != nil {
			return false, fmt.Errorf("subscribe to broadcasts: %w", err)
		}
	}
	return stored && resumed, nil
}

func (e *establishment) openBroadcasts(l *link, filters []brokers.Filter) error {
	f := cover(filters)
	pattern := pattern(e.s.t.settings.prefix, f)
	sub, err := l.nc.ChanSubscribe(pattern, e.messages)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", pattern, err)
	}
	e.broadcasts = append(e.broadcasts, sub)
	return nil
}

// serve hands out events until ctx ends, linked ends or a consumer is lost,
// and returns why. Down is called at once, even while Handle blocks.
func (e *establishment) serve(ctx, linked context.Context) error {
	running, stop := context.WithCancelCause(linked)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, c := range e.consumers {
		wg.Go(func() {
			if err := c.feed(running, e.in); err != nil {
				stop(err)
			}
		})
		if c.kept {
			info := c.pull.CachedInfo()
			wg.Go(func() { e.s.watchShared(running, e.l, c.filters[0].Lane, info.Name) })
		}
	}
	if len(e.broadcasts) > 0 {
		wg.Go(func() { e.feedBroadcasts(running) })
	}
	if e.advisories != nil {
		wg.Go(func() { e.watchGone(running) })
	}
	wg.Go(func() {
		for {
			select {
			case d := <-e.in:
				e.s.Handle(ctx, d)
			case <-running.Done():
				return
			}
		}
	})
	<-running.Done()
	reason := context.Cause(running)
	if ctx.Err() == nil && e.s.Down != nil {
		e.s.Down(reason)
	}
	wg.Wait()
	return reason
}

// feedBroadcasts hands out events that nobody keeps.
func (e *establishment) feedBroadcasts(ctx context.Context) {
	for {
		var m *natsgo.Msg
		select {
		case m = <-e.messages:
		case <-ctx.Done():
			return
		}
		d, ok := e.broadcast(m)
		if !ok {
			continue
		}
		select {
		case e.in <- d:
		case <-ctx.Done():
			return
		}
	}
}

func (e *establishment) broadcast(m *natsgo.Msg) (brokers.Delivery, bool) {
	t := e.s.t
	from, err := topic(t.settings.prefix, m.Subject)
	if err != nil {
		t.discard(m.Subject, dropTopic, err)
		return brokers.Delivery{}, false
	}
	if !matches(e.s.filters[from.Lane], from) {
		return brokers.Delivery{}, false
	}
	ev, err := parse(m.Header, m.Data)
	if err != nil {
		t.discard(m.Subject, dropInvalid, err)
		return brokers.Delivery{}, false
	}
	received.Inc()
	return brokers.NewDelivery(from, ev, "", func(err error) {
		if errors.Is(err, brokers.ErrReject) {
			dropped.WithLabelValues(dropRejected).Inc()
		}
	}), true
}

func (e *establishment) close() {
	for _, sub := range e.broadcasts {
		// It fails on a connection that is closed, with nothing left to do.
		_ = sub.Unsubscribe()
	}
}

// joined returns a context that ends with both, with the cause of either.
func joined(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
