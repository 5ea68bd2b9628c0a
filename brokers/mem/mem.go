// Package mem is a broker inside the process, for tests and simulations, and
// the shortest reading of what package brokers promises.
//
// It is less kind than real brokers: it connects late, delivers late, twice
// and across topics in any order, and loses connections and events on demand.
// What it does by chance is drawn from a seed, for each identity on its own, so
// that a run is repeated as far as the order of its goroutines is.
//
// # Kinds of broker
//
// By default a [Broker] is like an MQTT broker: a session per identity queues
// what it subscribed to, also while it is away. With [Options].Log it is like
// JetStream with one message per subject: it keeps the newest event of each
// topic for whoever comes later, deliveries have positions, and there are no
// wills. Either way an
// event that is settled with an error comes again after a while, before newer
// ones of its topic that were not handed over, and what is
// unsettled when the connection is lost comes again after it. Settling such an
// event then has no effect.
//
// # URLs
//
// mem: is a broker of one's own, which serves nobody else; mem://name is shared
// within the process by its name, for as long as the process runs. Neither has
// parameters; [NewBroker] takes options.
//
// # Time
//
// It uses no other clock and no other waiting than package time and channels,
// so it works within testing/synctest. Subscribe delivers from its caller's
// goroutine; a transport has none of its own.
package mem

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// Options say how nasty a broker is. The zero value is a kind one, but for the
// order across topics.
type Options struct {
	// Seed is where chance comes from.
	Seed uint64

	// Delay is the longest time that an event waits at the broker, that a
	// confirmation takes, and that a duplicate stays behind. Default: none.
	Delay time.Duration

	// Reconnect is the longest time that a transport needs to connect once it
	// can. Default: 10 ms.
	Reconnect time.Duration

	// Redeliver is how long an event settled with an error waits until it comes
	// again on the same connection. Default: 100 ms.
	Redeliver time.Duration

	// Duplicate is the share of deliveries, 0 to 1, that are repeated on the
	// same connection, settled or not.
	Duplicate float64

	// Drop is the share of events, 0 to 1, that a subscriber does not get
	// although the broker confirmed them. A broker that does this is broken.
	Drop float64

	// Cut is the share of publishes, 0 to 1, during which the publisher loses
	// its connection. The event may have arrived or not.
	Cut float64

	// Log keeps the newest event of each topic, Key included, and gives
	// positions; broadcasts are not kept.
	Log bool

	// DurableBroadcast queues broadcasts for identities that are away.
	DurableBroadcast bool

	// Queue is how many events the broker keeps for one subscription; the
	// oldest are dropped first. Default: 10,000.
	Queue int

	// Window is how many events a subscription may leave unsettled before it
	// gets no more. Default: 256.
	Window int

	// MaxSize is the size in bytes, as event.Event.Size has it, over which
	// events are refused. Default: no limit.
	MaxSize int

	// Refuse, if set, says that an identity may not publish to a topic. It is
	// called concurrently.
	Refuse func(c brokers.Config, to brokers.Topic) bool
}

func (o Options) withDefaults() Options {
	if o.Reconnect <= 0 {
		o.Reconnect = 10 * time.Millisecond
	}
	if o.Redeliver <= 0 {
		o.Redeliver = 100 * time.Millisecond
	}
	if o.Queue <= 0 {
		o.Queue = 10_000
	}
	if o.Window <= 0 {
		o.Window = 256
	}
	return o
}

// A Broker holds sessions and, with Options.Log, the newest events. Its methods
// may be called concurrently.
type Broker struct {
	opts Options

	mu          sync.Mutex
	running     bool
	partitioned map[string]bool
	// transports are those that are open; clients, by client ID, those of them
	// that are connected.
	transports map[*transport]bool
	clients    map[string]*transport

	// wills are those of clients that were lost, until they are published.
	wills map[string]*time.Timer

	// What follows is the broker's data.
	epoch    uint64 // Of the log: positions of another mean nothing.
	seq      uint64 // Of the last event that was taken.
	last     *lastValues
	sessions map[sessionKey]*queue
	index    map[brokers.Filter][]*queue
}

// NewBroker returns a running broker without data.
func NewBroker(o Options) *Broker {
	b := &Broker{
		opts:        o.withDefaults(),
		running:     true,
		partitioned: make(map[string]bool),
		transports:  make(map[*transport]bool),
		clients:     make(map[string]*transport),
		wills:       make(map[string]*time.Timer),
	}
	b.emptyLocked()
	return b
}

// emptyLocked forgets all data.
func (b *Broker) emptyLocked() {
	b.epoch++
	b.seq = 0
	b.last = newLastValues()
	b.sessions = make(map[sessionKey]*queue)
	b.index = make(map[brokers.Filter][]*queue)
}

// Open returns a transport of this broker. Its configuration must be valid; of
// it, role, name, client ID, will and log matter.
func (b *Broker) Open(c brokers.Config) brokers.Transport {
	ctx, cancel := context.WithCancel(context.Background())
	t := &transport{
		b: b, config: c, id: c.Identity(), log: c.Logger().With("broker", "mem"),
		rng: b.chance("transport " + c.Identity()),
		ctx: ctx, cancel: cancel, up: make(chan struct{}),
	}
	if w := c.Will; w != nil && !b.opts.Log && (b.opts.Refuse == nil || !b.opts.Refuse(c, w.Topic)) {
		t.will = w
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.transports[t] = true
	b.connectLaterLocked(t)
	return t
}

// Stop breaks all connections and takes no new ones until Start. The data
// stays, but for wills.
func (b *Broker) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = false
	b.forgetWillsLocked()
	b.breakAllLocked(errors.New("broker stopped"))
}

// Start takes connections again.
func (b *Broker) Start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = true
	for t := range b.transports {
		b.connectLaterLocked(t)
	}
}

// Wipe breaks all connections and loses all data. Transports connect again.
func (b *Broker) Wipe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetWillsLocked()
	b.breakAllLocked(errors.New("broker lost its data"))
	b.emptyLocked()
	for t := range b.transports {
		b.connectLaterLocked(t)
	}
}

func (b *Broker) breakAllLocked(reason error) {
	for t := range b.transports {
		b.breakLocked(t, reason)
	}
}

// Disconnect breaks the connection of a client ID, if it has one, and lets it
// connect again.
func (b *Broker) Disconnect(clientID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.clients[clientID]; t != nil {
		b.breakLocked(t, errors.New("broker closed the connection"))
		b.willLocked(t)
		b.connectLaterLocked(t)
	}
}

// Crash ends the transport that is connected by a client ID as the death of its
// process would: the connection breaks and never comes back, and another may
// take the client ID. What was called on the transport still returns as without
// a connection, and it is to be closed.
func (b *Broker) Crash(clientID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.clients[clientID]; t != nil {
		delete(b.transports, t)
		b.breakLocked(t, errors.New("process crashed"))
		b.willLocked(t)
	}
}

// Partition breaks the connection of a client ID and keeps it from connecting
// until Heal.
func (b *Broker) Partition(clientID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partitioned[clientID] = true
	if t := b.clients[clientID]; t != nil {
		b.breakLocked(t, errors.New("network partitioned"))
		b.willLocked(t)
	}
}

// Heal ends a Partition.
func (b *Broker) Heal(clientID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.partitioned, clientID)
	for t := range b.transports {
		if t.id == clientID {
			b.connectLaterLocked(t)
		}
	}
}

// chance is the source of chance of one identity, which does not depend on
// what others draw.
func (b *Broker) chance(who string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(who)) // A hash never fails.
	return rand.New(rand.NewPCG(b.opts.Seed, h.Sum64()))
}

// named are the brokers of mem://name URLs.
var named struct {
	sync.Mutex
	brokers map[string]*Broker
}

// Open is the driver of mem URLs.
func Open(_ context.Context, u *url.URL, c brokers.Config) (brokers.Transport, error) {
	if u.Opaque != "" || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s is not a mem URL: write mem: or mem://name", u.Redacted())
	}
	if err := c.Validate(); err != nil || c.CheckOnly {
		return nil, err
	}
	if u.Host == "" {
		return NewBroker(Options{}).Open(c), nil
	}
	named.Lock()
	defer named.Unlock()
	b := named.brokers[u.Host]
	if b == nil {
		b = NewBroker(Options{})
		if named.brokers == nil {
			named.brokers = make(map[string]*Broker)
		}
		named.brokers[u.Host] = b
	}
	return b.Open(c), nil
}
