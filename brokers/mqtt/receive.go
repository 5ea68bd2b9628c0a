package mqtt

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// unclaimedFor is how long an event for nobody may hold up the acknowledgement
// of others.
const unclaimedFor = 30 * time.Second

// A message is an event received and not acknowledged. Its fields are under the
// transport's lock.
type message struct {
	link *link
	// number is the packet's, 0 for QoS 0, which is not acknowledged.
	number uint16

	from  brokers.Topic
	event event.Event
	// object is what the event is about: events of one topic about the same
	// object keep their order. "" for those about none.
	object string

	// owners counts the subscriptions that have to settle it.
	owners int
	// unclaimed since, if not zero, says that nobody who was here settled it,
	// and that it waits for who comes.
	unclaimed time.Time
}

// objectAttribute names the attribute that tells the objects of a topic apart,
// as the topic has no place for the Key. It is OCM's.
const objectAttribute = "resourceid"

// An order is what has to be handed over in the order of arrival: what one topic
// says of one object.
type order struct {
	topic  brokers.Topic
	object string
}

func (m *message) order() order { return order{m.from, m.object} }

// settled says that the broker need not keep the message.
func (m *message) settled() bool { return m.owners == 0 && m.unclaimed.IsZero() }

// receive is called with one packet after the other, by the goroutine that also
// reads the broker's confirmations, so it must not wait for any subscriber. How
// much it piles up is bounded by the Receive Maximum.
func (t *transport) receive(p *paho.Publish) {
	l := t.keeper.link.Load()
	if l == nil {
		return // The broker sends it again.
	}
	m := &message{link: l, number: p.PacketID}
	reason, err := t.read(m, p)

	t.mu.Lock()
	defer t.mu.Unlock()
	if l.forgotten {
		return
	}
	if reason != "" {
		t.dropLocked(reason, p.Topic, err)
	} else {
		t.dispatchLocked(m)
	}
	if m.number != 0 {
		l.unacked = append(l.unacked, m)
		t.settleLocked(l)
	}
}

// read fills m from p, or returns why it is not for any subscriber.
func (t *transport) read(m *message, p *paho.Publish) (reason string, err error) {
	var ok bool
	if m.from, ok = t.topics.parse(p.Topic); !ok {
		return dropTopic, nil
	}
	if p.Retain {
		return dropRetained, nil
	}
	if m.event, err = decode(p); err != nil {
		return dropNotCloudEvent, err
	}
	m.object = m.event.Get(objectAttribute)
	return "", nil
}

// dispatchLocked gives m to the subscriptions that want it.
func (t *transport) dispatchLocked(m *message) {
	m.unclaimed = time.Now()
	for _, s := range t.subs {
		// An event of QoS 0 is not bounded by the Receive Maximum.
		if m.number == 0 && len(s.queue) >= t.receiveMaximum && s.wants(m) {
			t.dropLocked(dropOverflow, "", nil)
			continue
		}
		s.claim(m)
	}
	if m.owners > 0 {
		received.Inc()
	} else if m.number == 0 {
		t.dropLocked(dropUnclaimed, "", nil)
	}
}

// dropLocked counts an event that nobody gets, and logs the first of a kind.
func (t *transport) dropLocked(reason, topic string, err error) {
	dropped.WithLabelValues(reason).Inc()
	if t.toldDrop[reason] || reason == dropRejected {
		return
	}
	t.toldDrop[reason] = true
	args := []any{"reason", reason}
	if topic != "" {
		args = append(args, "topic", clip(topic))
	}
	if err != nil {
		args = append(args, slog.Any("err", err))
	}
	t.log.Warn("dropped an event from the broker; others of this kind are only counted", args...)
}

// settleLocked acknowledges the oldest events as far as they are settled.
func (t *transport) settleLocked(l *link) {
	for {
		n := 0
		for n < len(l.unacked) && l.unacked[n].settled() {
			l.acknowledge(l.unacked[n].number)
			for _, s := range t.subs {
				delete(s.held, l.unacked[n])
			}
			n++
		}
		clear(l.unacked[:n])
		l.unacked = l.unacked[n:]
		if !t.giveUpLocked(l) {
			return
		}
	}
}

// giveUpLocked settles the oldest event if it has waited long enough for
// somebody to claim it, while it keeps the broker from sending more to others.
func (t *transport) giveUpLocked(l *link) bool {
	if len(l.unacked) < t.receiveMaximum || len(t.subs) == 0 || l.unacked[0].unclaimed.IsZero() || l.unacked[0].owners > 0 {
		return false
	}
	oldest := l.unacked[0]
	if wait := time.Until(oldest.unclaimed.Add(unclaimedFor)); wait > 0 {
		if l.relief == nil {
			l.relief = time.AfterFunc(wait, func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				l.relief = nil
				t.settleLocked(l)
			})
		}
		return false
	}
	t.dropLocked(dropUnclaimed, t.topics.topic(oldest.from), nil)
	oldest.unclaimed = time.Time{}
	return true
}

// forgetLocked drops what was received on l: the broker sends it again.
func (t *transport) forgetLocked(l *link) {
	l.forgotten = true
	l.unacked = nil
	if l.relief != nil {
		l.relief.Stop()
	}
	for _, s := range t.subs {
		s.queue = nil
		clear(s.held)
		clear(s.stalled)
	}
}

// add begins a subscription, which gets what waited for it.
func (t *transport) add(s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = append(t.subs, s)
	l := t.keeper.link.Load()
	if l == nil {
		return
	}
	for _, m := range l.unacked {
		if !m.unclaimed.IsZero() {
			s.claim(m)
		}
	}
	t.settleLocked(l)
}

// remove ends a subscription. What it did not settle waits for the next.
func (t *transport) remove(s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = slices.DeleteFunc(t.subs, func(other *subscription) bool { return other == s })
	for m, h := range s.held {
		if !h.settled {
			m.owners--
			m.unclaimed = time.Now()
		}
	}
	clear(s.held)
	clear(s.stalled)
	s.queue = nil
	// It may fill the window of those who stay.
	if l := t.keeper.link.Load(); l != nil {
		t.settleLocked(l)
	}
}

func (s *subscription) wants(m *message) bool {
	return slices.ContainsFunc(s.Filters, func(f brokers.Filter) bool { return f.Matches(m.from) })
}

// claim takes m if s wants it.
func (s *subscription) claim(m *message) {
	if !s.wants(m) {
		return
	}
	m.owners++
	m.unclaimed = time.Time{}
	if m.number != 0 {
		s.held[m] = new(hold)
		if line, ok := s.stalled[m.order()]; ok {
			s.stalled[m.order()] = append(line, m)
			return
		}
	}
	s.enqueue(m)
}

func (s *subscription) enqueue(m ...*message) {
	s.queue = append(s.queue, m...)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes the next event to hand over.
func (t *transport) next(s *subscription) (brokers.Delivery, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(s.queue) == 0 {
		return brokers.Delivery{}, false
	}
	m := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	turn := 0
	if h := s.held[m]; h != nil {
		if h.handed {
			received.Inc()
		}
		h.handed, turn = true, h.turn
	}
	return brokers.NewDelivery(m.from, m.event, "", func(err error) { t.done(s, m, turn, err) }), true
}

// done settles m for s. It does nothing for an earlier hand-over than the last,
// after the end of the subscription, or after that of the connection.
func (t *transport) done(s *subscription, m *message, turn int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := s.held[m]
	if h == nil || h.settled || h.turn != turn {
		return
	}
	switch {
	case errors.Is(err, brokers.ErrReject):
		t.dropLocked(dropRejected, "", nil)
		delete(s.held, m)
	case err != nil:
		t.stallLocked(s, m)
		return
	default:
		h.settled = true
	}
	m.owners--
	if line := s.stalled[m.order()]; len(line) > 0 && line[0] == m {
		delete(s.stalled, m.order())
		s.enqueue(line[1:]...)
	}
	t.settleLocked(m.link)
}

// stallLocked has m, which s settled with an error, handed over again after a
// pause. Until s has settled it, what came after it in its order waits, and
// what of that was handed over already comes again: else an older event would
// be the last that s sees.
func (t *transport) stallLocked(s *subscription, m *message) {
	var line []*message
	for _, later := range m.link.unacked[slices.Index(m.link.unacked, m):] {
		h := s.held[later]
		if h == nil || later.order() != m.order() {
			continue
		}
		if h.settled {
			h.settled = false
			later.owners++
		}
		h.turn++
		line = append(line, later)
	}
	s.stalled[m.order()] = line
	s.queue = slices.DeleteFunc(s.queue, func(q *message) bool { return q.number != 0 && q.order() == m.order() })

	h := s.held[m]
	turn := h.turn
	time.AfterFunc(backoff(h.failures), func() { t.retry(s, m, turn) })
	h.failures++
}

// retry queues an event again that was settled with an error, unless it was
// overtaken by another failure.
func (t *transport) retry(s *subscription, m *message, turn int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if line := s.stalled[m.order()]; len(line) > 0 && line[0] == m && s.held[m].turn == turn {
		s.enqueue(m)
	}
}
