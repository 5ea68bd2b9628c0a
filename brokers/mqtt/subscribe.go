package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	// subackTimeout bounds the wait for the answer to a SUBSCRIBE packet.
	subackTimeout = 30 * time.Second

	// filtersPerPacket is the most that AWS IoT Core takes in one SUBSCRIBE.
	filtersPerPacket = 8

	// noRetained is the Retain Handling option of a subscription that does not
	// want retained messages.
	noRetained = 2
)

// A subscription is a running Subscribe call.
type subscription struct {
	brokers.Subscription

	// wake has an element when there may be something in queue.
	wake chan struct{}

	// Under the transport's lock: queue is what to hand over next, held all
	// that it took and the broker was not told to forget, but for QoS 0 and what
	// was rejected.
	queue []*message
	held  map[*message]*hold
	// stalled holds, where an event failed, that and what waits behind it, in
	// the order of arrival. QoS 0, for which nobody promises an order, never
	// waits.
	stalled map[order][]*message
}

// A hold is what a subscription knows of a message that it took.
type hold struct {
	// handed over at least once; settled well, which the failure of an older
	// event takes back.
	handed, settled bool
	// turn counts what makes earlier hand-overs void, failures those of this
	// message.
	turn, failures int
}

func newSubscription(s brokers.Subscription) *subscription {
	return &subscription{
		Subscription: s, wake: make(chan struct{}, 1),
		held: make(map[*message]*hold), stalled: make(map[order][]*message),
	}
}

// Subscribe implements [brokers.Transport].
func (t *transport) Subscribe(ctx context.Context, s brokers.Subscription) error {
	if len(s.Filters) == 0 {
		return fmt.Errorf("subscribe: %w: no filter given", brokers.ErrInvalidTopic)
	}
	filters := make([]string, 0, len(s.Filters))
	for _, f := range s.Filters {
		if err := f.Validate(); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		filters = append(filters, t.topics.filter(f))
	}
	sub := newSubscription(s)

	handleCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.closing, cancel)()

	t.add(sub)
	defer t.remove(sub)
	for {
		l := t.await(handleCtx)
		if l == nil {
			break
		}
		resumed, ok := t.establish(handleCtx, l, filters)
		if !ok {
			continue
		}
		if s.Ready != nil {
			s.Ready(brokers.Session{Resumed: resumed})
		}
		t.deliver(handleCtx, l, sub)
		if handleCtx.Err() != nil {
			break
		}
		if s.Down != nil {
			s.Down(context.Cause(l.ctx))
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("subscribe: %w", brokers.ErrClosed)
	}
	return nil
}

// await returns the next usable link, or nil when ctx has ended.
func (t *transport) await(ctx context.Context) *link {
	for {
		t.mu.Lock()
		l, changed := t.link, t.changed
		t.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if l != nil && l.alive() {
			return l
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// establish subscribes on l, as often as it takes, and says whether the broker
// has collected for these filters before. It gives up when l or ctx has ended.
func (t *transport) establish(ctx context.Context, l *link, filters []string) (resumed, ok bool) {
	told := ""
	for attempt := 0; ; attempt++ {
		err := t.subscribe(ctx, l, filters)
		if ctx.Err() != nil || !l.alive() {
			return false, false
		}
		if err == nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.session.subscribed(filters), true
		}
		if told != err.Error() {
			told = err.Error()
			t.log.Warn("cannot subscribe, trying again", "err", err)
		}
		// The pause has a floor: the broker did answer.
		pause := time.NewTimer(backoff(attempt)/2 + rand.N(backoff(attempt)))
		select {
		case <-pause.C:
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
		pause.Stop()
	}
}

// subscribe sends the filters and waits for the broker's answers.
func (t *transport) subscribe(ctx context.Context, l *link, filters []string) error {
	ctx, cancel := context.WithTimeout(outgoing{link: l}.context(ctx), subackTimeout)
	defer cancel()
	for some := range slices.Chunk(filters, filtersPerPacket) {
		p := &paho.Subscribe{}
		for _, filter := range some {
			p.Subscriptions = append(p.Subscriptions, paho.SubscribeOptions{Topic: filter, QoS: 1, RetainHandling: noRetained})
		}
		answer, err := t.manager.Subscribe(ctx, p)
		if answer != nil {
			said := ""
			if answer.Properties != nil {
				said = answer.Properties.ReasonString
			}
			for i, code := range answer.Reasons {
				if code >= refused && i < len(some) {
					return fmt.Errorf("the broker refused the subscription to %s: %s", some[i], describe(code, said))
				}
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the broker did not answer the subscription to %s within %s", some[0], subackTimeout)
		}
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", some[0], err)
		}
	}
	return nil
}

// deliver hands over events until l or ctx has ended.
func (t *transport) deliver(ctx context.Context, l *link, s *subscription) {
	for {
		if ctx.Err() != nil || !l.alive() {
			return
		}
		if d, ok := t.next(s); ok {
			s.Handle(ctx, d)
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
	}
}

// An inventory knows for which filters the broker's session collects events.
type inventory struct {
	// inherited says that the session is an earlier process's, so that there
	// is no telling.
	inherited bool
	filters   map[string]bool
}

// connected is told whether the broker had a session for a new connection.
func (i *inventory) connected(present, first bool) {
	if !present {
		*i = inventory{}
	} else if first {
		i.inherited = true
	}
}

// subscribed is told of filters that are subscribed now, and says whether the
// broker may have collected for all of them before.
func (i *inventory) subscribed(filters []string) (before bool) {
	if i.filters == nil {
		i.filters = make(map[string]bool)
	}
	before = true
	for _, f := range filters {
		before = before && i.filters[f]
		i.filters[f] = true
	}
	return before || i.inherited
}
