package nats_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func work(source, cluster, key string) brokers.Topic {
	return brokers.Topic{Lane: brokers.ToCluster, Source: source, Cluster: cluster, Key: key}
}

func worksOf(source, cluster string) brokers.Filter {
	return brokers.Filter{Lane: brokers.ToCluster, Source: source, Cluster: cluster}
}

// keys waits for n events and returns their keys in order.
func (l *listener) keys(tb testing.TB, n int) []string {
	tb.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = l.next(tb).From.Key
	}
	return keys
}

// none checks that no event came that was not asked for.
func (l *listener) none(tb testing.TB) {
	tb.Helper()
	select {
	case d := <-l.deliveries:
		tb.Errorf("an event came for %s", d.From)
	default:
	}
}

// TestResumeFromCursor follows an agent that keeps its position on disk and
// nothing else.
func TestResumeFromCursor(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	kept := &cursor{}
	away := func(filters ...brokers.Filter) (*listener, brokers.Session, func()) {
		agent := open(t, s.url, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
		l := listen(t, agent, kept.get, func(d brokers.Delivery) { d.Done(nil) }, filters...)
		return l, l.ready(t), func() {
			l.stop(t)
			if err := agent.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	sendKeys := func(keys ...string) {
		for _, key := range keys {
			send(t, hub, work("hub", "c1", key), newEvent())
		}
	}
	check := func(what string, l *listener, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, l.keys(t, len(want))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		// Whatever else was on its way comes before what is sent now.
		last := publish(t, hub, l, work("hub", "c1", "last"))
		l.none(t)
		kept.set(last.Position)
	}

	sendKeys("a", "b", "c", "b")
	l, session, leave := away(worksOf(brokers.Any, "c1"))
	if session.Resumed {
		t.Error("an agent without a position is said to be resumed")
	}
	check("the newest of each", l, "a", "c", "b")
	leave()

	sendKeys("d", "a")
	send(t, hub, work("hub", "c2", "x"), newEvent())
	l, session, leave = away(worksOf(brokers.Any, "c1"))
	if !session.Resumed {
		t.Error("an agent with a position is not said to be resumed")
	}
	check("only what is newer than the position", l, "d", "a")

	// The same without a new process.
	s.stop(t)
	s.start(t)
	if !l.ready(t).Resumed {
		t.Error("an agent with a position is not said to be resumed after a restart of the server")
	}
	sendKeys("e")
	check("only what is new", l, "e")
	leave()

	// Other filters: what they add may be older than the position.
	send(t, hub, work("other", "c1", "old"), newEvent())
	l, session, leave = away(worksOf("other", "c1"))
	if session.Resumed {
		t.Error("a position of other filters is said to be resumed")
	}
	if diff := cmp.Diff([]string{"old"}, l.keys(t, 1)); diff != "" {
		t.Error(diff)
	}
	leave()

	for _, position := range []string{"nonsense", "another:12", kept.get() + "000000"} {
		kept.set(position)
		l, session, leave = away(worksOf(brokers.Any, "c1"))
		if session.Resumed {
			t.Errorf("position %q is said to be resumed", position)
		}
		if got := len(l.keys(t, 7)); got != 7 {
			t.Errorf("position %q: got %d events", position, got)
		}
		leave()
	}
}

// TestResumeAfterWipe holds that a position in a stream that is no more is not
// taken for one in its successor.
func TestResumeAfterWipe(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	kept := &cursor{}
	l := subscribe(t, agent, kept.get, worksOf(brokers.Any, "c1"))
	for i := range 3 {
		kept.set(publish(t, hub, l, work("hub", "c1", fmt.Sprint(i))).Position)
	}
	s.wipe(t)
	// Sources send again what they hold; here more than there was.
	var events []event.Event
	for i := range 10 {
		events = append(events, newEvent())
		send(t, hub, work("hub", "c1", fmt.Sprint(i)), events[i])
	}
	if l.ready(t).Resumed {
		t.Error("a lost stream is said to be resumed")
	}
	for _, e := range events {
		l.await(t, e)
	}
}
