package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// keepalive is after how long a publisher notices that nothing answers it.
const keepalive = 15 * time.Second

// trouble is what the network does to events on their way to the broker, each
// a share of all events from 0 to 1.
type trouble struct {
	drop    float64 // Lost, though the publisher was told that it arrived.
	repeat  float64 // Arrives again, up to copies times, some of them late.
	copies  int
	late    float64 // Arrives after up to delay, behind newer events.
	delay   time.Duration
	corrupt float64 // Bits flip, or the end is missing.
}

// passed is one event that a program published.
type passed struct {
	client string
	to     brokers.Topic
	event  event.Event
}

// A network lies between programs and the broker of a model. Its methods may be
// called concurrently.
type network struct {
	broker *mem.Broker
	ctx    context.Context // Ends with the model, and with it what is on its way.
	stop   context.CancelFunc
	under  sync.WaitGroup // Events on their way.

	mu      sync.Mutex
	rng     *rand.Rand
	trouble trouble
	history []passed
	cutOut  map[string]bool // Clients whose events reach nobody.
	cutIn   map[string]bool // Clients that no event reaches.
	wires   map[string]brokers.Transport
	stamp   func(client string, e event.Event) event.Event // Sets the sender's clock.
}

func newNetwork(broker *mem.Broker, seed uint64) *network {
	ctx, stop := context.WithCancel(context.Background())
	return &network{
		broker: broker, ctx: ctx, stop: stop, rng: rand.New(rand.NewPCG(seed, 7)),
		cutOut: map[string]bool{}, cutIn: map[string]bool{}, wires: map[string]brokers.Transport{},
	}
}

// close ends what is on its way.
func (n *network) close() {
	n.stop()
	n.under.Wait()
	n.mu.Lock()
	wires := n.wires
	n.wires = nil
	n.mu.Unlock()
	for _, w := range wires {
		_ = w.Close(context.Background())
	}
}

// set replaces the trouble.
func (n *network) set(t trouble) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trouble = t
}

// cut breaks one client's link in one direction or both.
func (n *network) cut(client string, out, in bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cutOut[client], n.cutIn[client] = out, in
}

// heal ends cuts and trouble. Clients whose link was cut connect anew, as they
// do when a keepalive fails.
func (n *network) heal() {
	n.mu.Lock()
	cut := map[string]bool{}
	for _, m := range []map[string]bool{n.cutOut, n.cutIn} {
		for c, is := range m {
			cut[c] = cut[c] || is
		}
		clear(m)
	}
	n.trouble = trouble{}
	n.mu.Unlock()
	for c, was := range cut {
		if was {
			n.broker.Disconnect(c)
		}
	}
}

// published returns what was published so far.
func (n *network) published() []passed {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.history)
}

// inject has an event reach the broker as if client had published it. It comes
// from nowhere in the end when the broker cannot be reached.
func (n *network) inject(p passed, after time.Duration) {
	n.under.Go(func() {
		if !n.pause(after) {
			return
		}
		_ = n.wire(p).Publish(n.ctx, p.to, p.event)
	})
}

// wire is the connection that late and injected events of a client take. It is
// not the client's own: that may be gone when the event arrives.
func (n *network) wire(p passed) brokers.Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, ok := n.wires[p.client]
	if !ok {
		role, name := brokers.RoleSource, p.to.Source
		if p.to.Lane == brokers.ToSource || p.to.Lane == brokers.ToAllSources {
			role, name = brokers.RoleAgent, p.to.Cluster
		}
		w = n.broker.Open(brokers.Config{Role: role, Name: name, ClientID: "late-" + p.client})
		if n.wires != nil {
			n.wires[p.client] = w
		}
	}
	return w
}

func (n *network) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// fate is what becomes of one published event.
type fate struct {
	cut, drop bool
	late      time.Duration
	again     []time.Duration
	as        event.Event
}

func (n *network) decide(client string, to brokers.Topic, e event.Event) fate {
	e = n.stamp(client, e)
	n.mu.Lock()
	defer n.mu.Unlock()
	f := fate{cut: n.cutOut[client], as: e}
	if f.cut {
		return f
	}
	n.history = append(n.history, passed{client, to, e.Clone()})
	t := n.trouble
	chance := func(share float64) bool { return share > 0 && n.rng.Float64() < share }
	if chance(t.corrupt) {
		if bad, ok := damage(n.rng, e); ok {
			f.as = bad
		}
	}
	f.drop = chance(t.drop)
	if chance(t.late) {
		f.late = upTo(n.rng, t.delay) + 1
	}
	for t.copies > 0 && len(f.again) < t.copies && chance(t.repeat) {
		f.again = append(f.again, upTo(n.rng, t.delay)+1)
	}
	return f
}

// A link is one program's transport. When the program dies, so does its link.
type link struct {
	n         *network
	client    string
	transport brokers.Transport
	crash     *crash

	mu        sync.Mutex
	handed    int // Events given to the program.
	settled   int // Of these, those that it settled.
	unsettled map[int]event.Event
}

func (n *network) open(c brokers.Config, dies *crash) *link {
	return &link{n: n, client: c.Identity(), transport: n.broker.Open(c), crash: dies, unsettled: map[int]event.Event{}}
}

// Publish implements brokers.Transport.
func (l *link) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	if l.crash.strikes(beforePublish) {
		<-ctx.Done()
		return ctx.Err()
	}
	f := l.n.decide(l.client, to, e)
	if f.cut {
		select {
		case <-time.After(keepalive):
			return fmt.Errorf("%w: nothing answers", brokers.ErrUnavailable)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, after := range f.again {
		l.n.inject(passed{l.client, to, f.as.Clone()}, after)
	}
	var err error
	switch {
	case f.drop:
	case f.late > 0:
		l.n.inject(passed{l.client, to, f.as.Clone()}, f.late)
	default:
		err = l.transport.Publish(ctx, to, f.as)
	}
	if l.crash.strikes(afterPublish) {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// Subscribe implements brokers.Transport.
func (l *link) Subscribe(ctx context.Context, s brokers.Subscription) error {
	handle := s.Handle
	s.Handle = func(ctx context.Context, d brokers.Delivery) {
		if l.crash.dead() || l.n.cutsIn(l.client) {
			return // It stays with the broker.
		}
		handle(ctx, l.counted(d))
	}
	return l.transport.Subscribe(ctx, s)
}

func (n *network) cutsIn(client string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cutIn[client]
}

// counted is a delivery that is missed until it is settled.
func (l *link) counted(d brokers.Delivery) brokers.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handed++
	nth := l.handed
	l.unsettled[nth] = d.Event
	return brokers.NewDelivery(d.From, d.Event, d.Position, func(err error) {
		l.mu.Lock()
		_, first := l.unsettled[nth]
		delete(l.unsettled, nth)
		if first {
			l.settled++
		}
		l.mu.Unlock()
		if !first {
			panic(fmt.Sprintf("%s settled an event twice: %s", l.client, d.From))
		}
		if !l.crash.dead() {
			d.Done(err)
		}
	})
}

// Close implements brokers.Transport.
func (l *link) Close(ctx context.Context) error { return l.transport.Close(ctx) }

// Moments at which a program may die, beside those between its steps.
const (
	beforePublish = "before a publish"
	afterPublish  = "after a publish"
	beforeCommit  = "before a commit"
	afterCommit   = "after a commit"
	beforeReport  = "before a report is saved"
	afterReport   = "after a report is saved"
)

var errDead = errors.New("this process is dead")

// A crash says when a program dies: nothing that it does afterwards has an
// effect on anybody.
type crash struct {
	mu   sync.Mutex
	when string // The moment at which it dies; "" for never.
	is   bool
}

// at arms the crash.
func (c *crash) at(moment string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.when = moment
}

// now kills the program.
func (c *crash) now() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.is = true
}

func (c *crash) dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.is
}

// strikes says that the program is dead at this moment, perhaps just now.
func (c *crash) strikes(moment string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.is = c.is || c.when == moment
	return c.is
}

// damage flips bits of an event or cuts it off, in a way that a receiver can
// notice. Damage that makes another valid event of it is what TLS and
// signatures are for.
func damage(rng *rand.Rand, e event.Event) (event.Event, bool) {
	for range 20 {
		bad := e.Clone()
		var names []string
		for name := range bad.All() {
			names = append(names, name)
		}
		at := rng.IntN(len(names) + 1)
		switch {
		case at < len(names) && rng.IntN(4) == 0:
			bad.Unset(names[at])
		case at < len(names):
			bad.Set(names[at], string(flip(rng, []byte(bad.Get(names[at])))))
		case len(bad.Data) > 0 && rng.IntN(2) == 0:
			bad.Data = bad.Data[:rng.IntN(len(bad.Data))]
		default:
			bad.Data = flip(rng, bad.Data)
		}
		if bad.Validate() != nil {
			continue // A driver would drop it.
		}
		if _, _, err := codec.Decode(bad); err != nil {
			return bad, true
		}
	}
	return e, false
}

func flip(rng *rand.Rand, b []byte) []byte {
	out := slices.Clone(b)
	for range 1 + rng.IntN(3) {
		if len(out) > 0 {
			out[rng.IntN(len(out))] ^= 1 << rng.IntN(8)
		}
	}
	return out
}

// upTo draws a duration below d.
func upTo(rng *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(d)))
}
