// Package brokers carries CloudEvents between sources and clusters over a
// message broker.
//
// A [Transport] is one identity's link to one broker. Drivers live in the
// folders below: mem for tests, mqtt for MQTT 5, nats for NATS JetStream;
// package drivers lists them by URL scheme, brokertest says what every driver
// must do, and embedded runs brokers inside this process.
//
// # Delivery
//
// Delivery is at least once, and only as good as the broker: an event may come
// twice, late, or after a newer one, and may never come at all when the broker
// loses its data. Both ends hold the state; they compare it when a
// subscription is established (see [Subscription.Ready]). Events of the same
// [Topic], Key included, are handed over in the order in which the broker
// delivered them. A broker that keeps one value per key delivers only the
// newest.
//
// # Identity
//
// The address an event came from is what the broker authorised, so it is the
// identity of its sender: [Delivery.From] never holds a wildcard. What an event
// says about itself must be held against it.
//
// # Errors
//
// Errors of this package are judged with errors.Is against the sentinels
// below. Everything is safe for concurrent use.
package brokers

import (
	"context"
	"errors"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

var (
	// ErrUnavailable is wrapped by Publish when there is no connection to the
	// broker, or when it went away before it confirmed. Whether the event
	// arrived is then unknown. The caller holds the state: it tries again when
	// Ready is called next.
	ErrUnavailable = errors.New("broker unavailable")

	// ErrTooLarge is wrapped by Publish for an event over the broker's limit.
	// Nothing was sent, and sending it again cannot help.
	ErrTooLarge = errors.New("event over the broker's size limit")

	// ErrRefused is wrapped by Publish when the broker answered no: not
	// authorised, over quota, or a topic it does not take. Trying again soon is
	// useless, later it may work.
	ErrRefused = errors.New("broker refused")

	// ErrReject is wrapped by the error given to [Delivery.Done] for an event
	// that shall not be delivered again.
	ErrReject = errors.New("event rejected")

	// ErrClosed is wrapped by every call on a Transport after Close.
	ErrClosed = errors.New("transport closed")

	// ErrInvalidTopic is wrapped for a topic or a filter that lacks a name its
	// lane needs, or has one that the broker cannot spell.
	ErrInvalidTopic = errors.New("invalid topic")
)

// A Transport publishes and subscribes as one identity over one connection. It
// connects in the background and reconnects by itself, with jitter.
type Transport interface {
	// Publish returns nil once the broker has e, as durably as that broker
	// promises. Without a connection it fails with ErrUnavailable at once. It
	// blocks while the window of unconfirmed events, sized by what the broker
	// allows, is full; calls run concurrently up to that window. The caller
	// must not change e until Publish returns.
	Publish(ctx context.Context, to Topic, e event.Event) error

	// Subscribe delivers events to s until ctx ends, and then returns nil. It
	// returns an error only for what waiting cannot cure: an invalid filter, or
	// a closed transport. One connection serves all its subscriptions. It
	// returns after the last Handle call has returned; what was not done by
	// then stays with the broker.
	Subscribe(ctx context.Context, s Subscription) error

	// Close waits for unconfirmed events until ctx ends, then disconnects,
	// leaving what the broker keeps for this identity (a session, a durable
	// consumer) in place. Subscribe calls return.
	Close(ctx context.Context) error
}

// A Subscription says what to listen to and what to do with it.
type Subscription struct {
	// Filters lists the topics; see [Filter]. All must be valid.
	Filters []Filter

	// Handle is called with one event at a time, in the order described in the
	// package comment. It should return soon and settle the event later with
	// Delivery.Done, from any goroutine: as long as it blocks, nothing else
	// of this subscription is delivered. The number of unsettled events is
	// bounded by the driver, which stops receiving until some are settled.
	Handle func(ctx context.Context, d Delivery)

	// Ready, if set, is called once each time the subscription is established,
	// at first and after every reconnect, and before Handle is called with an
	// event of that establishment. It must not block or publish itself.
	Ready func(Session)

	// Resume, if set, is asked at every establishment for the Position of the
	// last event that the subscriber keeps. A broker with a log starts there;
	// others never call it. "" starts with all that the broker has.
	Resume func() string

	// Down, if set, is called when an established subscription is lost, with
	// the reason. Ready follows when it is back. It must not block.
	Down func(error)

	// Gone, if set, is called with the name of a cluster of which the broker
	// says that its agent is no longer connected. It is a hint for who keeps
	// account of agents, and never a fact: most brokers say nothing, those that
	// do may say it late, more than once, of an agent that just came back or of
	// one that only cannot reach the broker, and what was said while this
	// subscription was down is lost. An agent that was connected by the same
	// name since is not told apart. It is called for clusters that the filters
	// cover, for as long as the subscription is established, from one goroutine
	// at a time, which may be another than Handle's. It must not block.
	Gone func(cluster string)
}

// A Session describes one establishment of a subscription.
type Session struct {
	// Resumed says that the broker continued where this subscriber left off, so
	// events sent meanwhile are on their way. It is no promise: queues overflow.
	// When false, anything sent while away is lost.
	Resumed bool
}

// A Delivery is one event with its address.
type Delivery struct {
	// From is the exact topic. Key is empty where the broker's addresses do not
	// carry keys.
	From Topic

	// Event is valid CloudEvents; drivers drop and count anything else. The
	// subscriber may keep it.
	Event event.Event

	// Position is opaque to the subscriber: what Resume may return once this
	// event and all before it are safe. Empty where the broker keeps no log.
	Position string

	done func(error)
}

// NewDelivery is for drivers: done settles the event.
func NewDelivery(from Topic, e event.Event, position string, done func(error)) Delivery {
	return Delivery{From: from, Event: e, Position: position, done: done}
}

// Done settles the event and must be called exactly once. Nil acknowledges it;
// an error that wraps ErrReject drops it for good; with any other error the
// broker keeps it and delivers it again, some only after a reconnect, and before
// newer events of its topic that were not handed over yet.
func (d Delivery) Done(err error) {
	if d.done != nil {
		d.done(err)
	}
}

// Sync makes a Handle out of a function that finishes each event before the
// next: what it returns settles the event.
func Sync(handle func(context.Context, Topic, event.Event) error) func(context.Context, Delivery) {
	return func(ctx context.Context, d Delivery) { d.Done(handle(ctx, d.From, d.Event)) }
}
