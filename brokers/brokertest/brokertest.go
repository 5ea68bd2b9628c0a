// Package brokertest says what a broker driver must do: the same cases run
// against every driver, on the broker it is made for.
//
// Brokers differ, and a [Harness] declares how. A declared feature is tested;
// one that is not declared changes what the cases expect, or leaves out those
// that have no meaning without it.
//
// The cases hold a driver to package brokers and to nothing else: events may
// come twice, late, and in any order across topics. All names are made up per
// case, so one broker serves them all, and nothing depends on how long
// anything takes.
package brokertest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// patience is how long a case waits for something that must happen. It only
// bounds a failing run, so it is generous.
const patience = 60 * time.Second

// A Harness lets Run work one broker and says what that broker can do.
type Harness struct {
	// Open (required) returns a new connection to the broker under test with
	// this identity, as the driver returns it: it need not be connected yet.
	// Run closes it.
	Open func(t *testing.T, c brokers.Config) brokers.Transport

	// Stop makes the broker unreachable: connections break and new ones fail.
	// Start brings it back at the same address with all that it had. A proxy
	// in front of the broker that closes does as well. Without them, the cases
	// on lost connections are left out.
	Stop, Start func(t *testing.T)

	// Wipe makes the broker lose everything, with all connections, and come
	// back empty at the same address. Optional.
	Wipe func(t *testing.T)

	// Sessions says that the broker keeps the events for an identity that is
	// away, and those that it did not settle.
	Sessions bool

	// Redelivers says that an event settled with an error comes again without
	// a reconnect. Else it does after one, if Sessions is set.
	Redelivers bool

	// Repeats says that the broker under test delivers events twice for no
	// reason, also after newer ones of their topic.
	Repeats bool

	// KeepsLast says that the broker keeps the newest event of each topic, Key
	// included, and no older one: a subscriber that comes late gets it.
	KeepsLast bool

	// Log says that deliveries have positions and that Resume is honoured.
	// Broadcast lanes need not have them.
	Log bool

	// DurableBroadcast says that Sessions is true of the broadcast lanes too.
	DurableBroadcast bool

	// Wills says that the broker publishes brokers.Config.Will. Cut is needed
	// with it: it opens a connection like Open, and returns also what breaks it
	// for good, without the goodbye of Close. A [Wire] between does as well.
	Wills bool
	Cut   func(t *testing.T, c brokers.Config) (tr brokers.Transport, cut func())

	// MaxSize, in bytes, is a body that the broker under test does not take,
	// while it takes one of half of it; above 600,000. With 0, sizes are not
	// tested.
	MaxSize int

	// Ignore lists the goroutines that a broker in this process starts for its
	// clients and keeps, so that they are not blamed on the driver. Goroutines
	// from before a case are ignored anyway.
	Ignore []goleak.Option
}

type testCase struct {
	name string
	run  func(*env)
	// when says whether the case has a meaning for a harness. Nil: always.
	when func(Harness) bool
	// outage marks a case that stops the broker. A broker in this process has
	// other goroutines afterwards, so the case looks for leaks itself.
	outage bool
}

func stops(h Harness) bool    { return h.Stop != nil && h.Start != nil }
func sessions(h Harness) bool { return h.Sessions }
func wills(h Harness) bool    { return h.Wills }

var cases = []testCase{
	{name: "attributes survive", run: attributesSurvive},
	{name: "bodies survive", run: bodiesSurvive},
	{name: "too large", run: tooLarge, when: func(h Harness) bool { return h.MaxSize > 0 }},
	{name: "many publishers", run: manyPublishers},

	{name: "invalid topics", run: invalidTopics},
	{name: "invalid filters", run: invalidFilters},
	{name: "wildcards", run: wildcards},
	{name: "broadcasts", run: broadcasts},
	{name: "only what the filters say", run: onlyFilters},
	{name: "names are kept apart", run: namesApart},
	{name: "keys are kept apart", run: keysApart},
	{name: "order per topic", run: orderPerTopic},
	{name: "two subscriptions", run: twoSubscriptions},

	{name: "nil acknowledges", run: nilAcknowledges, when: sessions},
	{name: "reject drops", run: rejectDrops, when: sessions},
	{name: "error redelivers", run: errorRedelivers, when: func(h Harness) bool { return h.Redelivers || h.Sessions }},
	{name: "errors keep the order", run: errorsKeepOrder, when: func(h Harness) bool { return h.Redelivers && !h.Repeats }},
	{name: "unsettled comes again", run: unsettledAgain, when: sessions},
	{name: "settled later and elsewhere", run: settledLater},
	{name: "one stays unsettled", run: oneUnsettled},
	{name: "blocked handle loses nothing", run: blockedHandle},

	{name: "first establishment", run: firstEstablishment},
	{name: "away and back", run: awayAndBack, when: sessions},
	{name: "late subscriber", run: lateSubscriber, when: func(h Harness) bool { return h.KeepsLast }},
	{name: "resume", run: resume, when: func(h Harness) bool { return h.Log }},
	{name: "resume is not asked", run: resumeNotAsked, when: func(h Harness) bool { return !h.Log }},
	{name: "subscribe again", run: subscribeAgain},

	{name: "will of a lost connection", run: willOfLost, when: wills},
	{name: "no will after close", run: noWillAfterClose, when: wills},
	{name: "will with a delay", run: willWithDelay, when: wills},

	{name: "cancel", run: cancelSubscribe},
	{name: "closed", run: closed},
	{name: "close flushes", run: closeFlushes},
	{name: "close with an ended context", run: closeImpatiently},

	{name: "publish without broker", run: publishWithoutBroker, when: stops, outage: true},
	{name: "open without broker", run: openWithoutBroker, when: stops, outage: true},
	{name: "close without broker", run: closeWithoutBroker, when: stops, outage: true},
	{name: "restart", run: restart, when: stops, outage: true},
	{name: "restart under load", run: restartUnderLoad, when: func(h Harness) bool { return stops(h) && h.Sessions }, outage: true},
	{name: "wiped", run: wiped, when: func(h Harness) bool { return h.Wipe != nil }, outage: true},
}

// Run runs the conformance cases as subtests of t, one after the other.
func Run(t *testing.T, h Harness) {
	// Where the broker needs streams, the first source creates them; agents
	// rely on that.
	t.Run("connect", func(t *testing.T) {
		e := newEnv(t, h)
		s := e.name("source")
		e.send(e.source(s), toCluster(s, e.name("cluster"), ""), e.event())
	})
	for _, c := range cases {
		if c.when != nil && !c.when(h) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Run("case", func(t *testing.T) { c.run(newEnv(t, h)) })
			if !c.outage {
				noLeak(t, append([]goleak.Option{before}, h.Ignore...))
			}
		})
	}
}

// noLeak waits until the goroutines of a case are gone.
func noLeak(t *testing.T, ignore []goleak.Option) {
	t.Helper()
	deadline := time.Now().Add(patience / 2)
	for {
		err := goleak.Find(ignore...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("goroutines left behind after all transports were closed: %v", err)
			return
		}
	}
}

// An env is what one case works with.
type env struct {
	*testing.T
	h Harness
	// ctx ends when the case has lost its patience.
	ctx     context.Context
	stopped bool
}

func newEnv(t *testing.T, h Harness) *env {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return &env{T: t, h: h, ctx: ctx}
}

// name makes a name that no other case uses.
func (e *env) name(what string) string { return what + "-" + uuid.NewString()[:8] }

func (e *env) source(name string) brokers.Transport {
	e.Helper()
	return e.open(brokers.Config{Role: brokers.RoleSource, Name: name})
}

func (e *env) agent(cluster string) brokers.Transport {
	e.Helper()
	return e.open(brokers.Config{Role: brokers.RoleAgent, Name: cluster})
}

func (e *env) open(c brokers.Config) brokers.Transport {
	e.Helper()
	tr := e.h.Open(e.T, c)
	e.closeLater(c, tr)
	return tr
}

// openFragile opens a connection that cut breaks for good.
func (e *env) openFragile(c brokers.Config) (tr brokers.Transport, cut func()) {
	e.Helper()
	tr, cut = e.h.Cut(e.T, c)
	e.closeLater(c, tr)
	return tr, cut
}

func (e *env) closeLater(c brokers.Config, tr brokers.Transport) {
	e.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := tr.Close(ctx); err != nil && !errors.Is(err, brokers.ErrClosed) {
			e.Errorf("close transport of %s: %v", c.Name, err)
		}
	})
}

// close closes tr in the middle of a case.
func (e *env) close(tr brokers.Transport) {
	e.Helper()
	if err := tr.Close(e.ctx); err != nil {
		e.Fatalf("close: %v", err)
	}
}

// stopBroker stops the broker for this case only.
func (e *env) stopBroker() {
	e.Helper()
	e.stopped = true
	e.Cleanup(func() {
		if e.stopped {
			e.startBroker()
		}
	})
	e.h.Stop(e.T)
}

func (e *env) startBroker() {
	e.Helper()
	e.stopped = false
	e.h.Start(e.T)
}

// about is event with an attribute for drivers whose topics have no keys: OCM's
// name of the object.
func (e *env) about(key string) event.Event {
	ev := e.event()
	ev.Set("resourceid", key)
	return ev
}

// event returns an event with an ID of its own.
func (e *env) event() event.Event {
	ev := event.New("io.fleetcast.brokertest", "brokertest", time.Now(), 1)
	ev.Data = []byte(`{"n":1}`)
	ev.Set(event.DataContentType, event.JSON)
	return ev
}

// send publishes ev, waiting for the connection.
func (e *env) send(tr brokers.Transport, to brokers.Topic, ev event.Event) {
	e.Helper()
	if err := e.trySend(tr, to, ev); err != nil {
		e.Fatalf("publish to %s: %v", to, err)
	}
}

// trySend is send for other goroutines than the case's own.
func (e *env) trySend(tr brokers.Transport, to brokers.Topic, ev event.Event) error {
	for {
		err := tr.Publish(e.ctx, to, ev)
		if !errors.Is(err, brokers.ErrUnavailable) {
			return err
		}
		select {
		case <-e.ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func toCluster(source, cluster, key string) brokers.Topic {
	return brokers.Topic{Lane: brokers.ToCluster, Source: source, Cluster: cluster, Key: key}
}

func toSource(source, cluster, key string) brokers.Topic {
	return brokers.Topic{Lane: brokers.ToSource, Source: source, Cluster: cluster, Key: key}
}

// works is what an agent listens to: the works of every source.
func works(cluster string) brokers.Filter {
	return brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: cluster}
}

// reports is what a source listens to: the reports of every cluster.
func reports(source string) brokers.Filter {
	return brokers.Filter{Lane: brokers.ToSource, Source: source, Cluster: brokers.Any}
}

func id(ev event.Event) string { return ev.Get(event.ID) }

func long(n int) string { return strings.Repeat("x", n) }
