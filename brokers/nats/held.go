package nats

import (
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// held is what one consumer delivered to the subscriber and the server does
// not know to be settled, by sequence in the stream. It outlives connections,
// as the consumer does.
type held struct {
	created time.Time // Of the consumer.

	mu       sync.Mutex
	over     bool
	messages map[uint64]*pending
}

type pending struct {
	msg     jetstream.Msg
	settled bool // The subscriber is done, but the server could not be told.
	outcome error
}

func newHeld(created time.Time) *held {
	return &held{created: created, messages: make(map[uint64]*pending)}
}

// add takes a message in, and says whether it is new. A redelivery of one that
// the subscriber still holds is settled with it.
func (h *held) add(sequence uint64, m jetstream.Msg) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		giveBack(m)
		return false
	}
	if have, ok := h.messages[sequence]; ok {
		have.msg = m
		if have.settled && answer(m, have.outcome) == nil {
			delete(h.messages, sequence)
		}
		return false
	}
	h.messages[sequence] = &pending{msg: m}
	return true
}

// leave takes in a message that the subscriber never saw and that the server
// could not be told to deliver again.
func (h *held) leave(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.messages[meta.Sequence.Stream]; !h.over && !ok {
		h.messages[meta.Sequence.Stream] = &pending{msg: m, settled: true, outcome: errNotHandled}
	}
}

// settle tells the server what the subscriber says of a message. Without a
// connection it is told later.
func (h *held) settle(sequence uint64, outcome error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.messages[sequence]
	if h.over || !ok {
		return
	}
	if errors.Is(outcome, brokers.ErrReject) {
		dropped.WithLabelValues(dropRejected).Inc()
	}
	if answer(m.msg, outcome) == nil {
		delete(h.messages, sequence)
		return
	}
	m.settled, m.outcome = true, outcome
}

// resend tells the server what it could not be told when it was away.
func (h *held) resend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sequence, m := range h.messages {
		if m.settled && answer(m.msg, m.outcome) == nil {
			delete(h.messages, sequence)
		}
	}
}

// end gives everything back to the server. What the subscriber says from now
// on has no effect: the event may be with another consumer.
func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	for _, m := range h.messages {
		if m.settled {
			_ = answer(m.msg, m.outcome)
		} else {
			giveBack(m.msg)
		}
	}
	clear(h.messages)
}

// forget is end for a consumer that is no more: there is nobody to tell.
func (h *held) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	clear(h.messages)
}

// answer fails without a connection only.
func answer(m jetstream.Msg, outcome error) error {
	switch {
	case outcome == nil:
		return m.Ack()
	case errors.Is(outcome, brokers.ErrReject):
		return m.Term()
	case errors.Is(outcome, errNotHandled):
		return m.Nak()
	default:
		return m.NakWithDelay(redeliverAfter(m))
	}
}

// redeliverAfter is how long the server keeps an event that failed: a quarter
// of a second at first, a minute in the end.
func redeliverAfter(m jetstream.Msg) time.Duration {
	const first, most = 250 * time.Millisecond, time.Minute
	meta, err := m.Metadata()
	if err != nil || meta.NumDelivered == 0 {
		return first
	}
	if meta.NumDelivered > 8 {
		return most
	}
	return min(first<<(meta.NumDelivered-1), most)
}
