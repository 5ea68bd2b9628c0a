package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// errLater is what a handler says that could not keep an event.
var errLater = errors.New("disk full")

// handling is for handlers that only want the delivery.
func handling(then func(brokers.Delivery)) listening {
	return listening{handle: func(_ context.Context, d brokers.Delivery) { then(d) }}
}

// sendMany publishes n events about an object each.
func (e *env) sendMany(tr brokers.Transport, source, cluster string, n int) []event.Event {
	e.Helper()
	events := make([]event.Event, n)
	for i := range events {
		events[i] = e.event()
		key := "key-" + id(events[i])
		events[i].Set("resourceid", key)
		e.send(tr, toCluster(source, cluster, key), events[i])
	}
	return events
}

// again opens a new connection of the same identity and listens until an event
// sent now has come. What shall not come again would have come by then from a
// broker that keeps the order.
func (e *env) again(hub brokers.Transport, source, cluster string) *listener {
	e.Helper()
	l := e.listen(e.agent(cluster), works(cluster))
	l.await(e.sendMany(hub, source, cluster, 10)...)
	return l
}

func nilAcknowledges(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))
	events := e.sendMany(hub, source, cluster, 20)
	l.await(events...)
	l.stop()
	e.close(agent)

	e.again(hub, source, cluster).never("it was acknowledged", events...)
}

func rejectDrops(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listenWith(agent, handling(func(d brokers.Delivery) {
		d.Done(fmt.Errorf("not for this cluster: %w", brokers.ErrReject))
	}), works(cluster))
	events := e.sendMany(hub, source, cluster, 5)
	l.await(events...)
	l.stop()
	e.close(agent)

	e.again(hub, source, cluster).never("it was rejected", events...)
}

func errorRedelivers(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	var (
		mu    sync.Mutex
		times = make(map[string]int)
	)
	l := e.listenWith(agent, handling(func(d brokers.Delivery) {
		mu.Lock()
		times[id(d.Event)]++
		first := times[id(d.Event)] == 1
		mu.Unlock()
		if first {
			d.Done(fmt.Errorf("keep event: %w", errLater))
			return
		}
		d.Done(nil)
	}), works(cluster))
	events := e.sendMany(hub, source, cluster, 5)
	l.await(events...)
	if !e.h.Redelivers {
		l.stop()
		e.close(agent)
		l = e.listen(e.agent(cluster), works(cluster))
		l.await(events...)
		return
	}
	l.until("all events came again", func() bool {
		n := make(map[string]int)
		for _, d := range l.got {
			n[id(d.Event)]++
		}
		for _, ev := range events {
			if n[id(ev)] < 2 {
				return false
			}
		}
		return true
	})
	// An event that came late must not be left over for ever either.
	more := e.sendMany(hub, source, cluster, 1)
	l.await(more...)
}

// errorsKeepOrder holds that an event that failed is not handed over again after
// a newer one of its key. Where the newer one replaces it, it need not come
// again at all.
func errorsKeepOrder(e *env) {
	const keys, failures = 10, 2
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	var (
		mu       sync.Mutex
		attempts = make(map[string]int)  // By event.
		kept     = make(map[string]bool) // By event.
		newer    = make(map[string]bool) // By key: the newer event came.
	)
	failed, release := make(chan struct{}, keys), make(chan struct{})
	older, replaced := make([]event.Event, keys), make(map[string]bool)
	for i := range older {
		older[i] = e.about(fmt.Sprint("key-", i))
		replaced[id(older[i])] = true
	}
	l := e.listenWith(agent, handling(func(d brokers.Delivery) {
		mu.Lock()
		key, isOlder := d.Event.Get("resourceid"), replaced[id(d.Event)]
		attempts[id(d.Event)]++
		attempt := attempts[id(d.Event)]
		fails := attempt <= failures && d.Event.Get("fails") != ""
		if isOlder && newer[key] && !kept[id(d.Event)] {
			e.Errorf("an event that failed came again (attempt %d) after a newer one of its key", attempt)
		}
		if !isOlder {
			newer[key] = true
		}
		kept[id(d.Event)] = kept[id(d.Event)] || !fails
		mu.Unlock()
		switch {
		case !fails:
			d.Done(nil)
		case isOlder && attempt == 2:
			// It fails again, but only when the newer one could have come.
			go func() {
				e.hold(release)
				d.Done(fmt.Errorf("keep event: %w", errLater))
			}()
		default:
			d.Done(fmt.Errorf("keep event: %w", errLater))
			if isOlder && attempt == 1 {
				failed <- struct{}{}
			}
		}
	}), works(cluster))

	send := func(ev event.Event) { e.send(hub, toCluster(source, cluster, ev.Get("resourceid")), ev) }
	for i := range older {
		older[i].Set("fails", "yes")
		send(older[i])
	}
	for range older {
		e.receive(failed, "all events failed")
	}
	more := make([]event.Event, keys)
	for i := range more {
		more[i] = e.about(older[i].Get("resourceid"))
		send(more[i])
	}
	if !e.h.KeepsLast {
		l.until("all events came again", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return !slices.ContainsFunc(older, func(ev event.Event) bool { return attempts[id(ev)] < 2 })
		})
	}
	l.await(e.sendMany(hub, source, cluster, 5)...)
	close(release)
	l.await(more...)
	// What fails only now comes again later than what failed before.
	last := e.about("last")
	last.Set("fails", "yes")
	send(last)
	l.until("all that must come again was kept", func() bool {
		mu.Lock()
		defer mu.Unlock()
		lost := slices.ContainsFunc(older, func(ev event.Event) bool { return !kept[id(ev)] })
		return kept[id(last)] && (e.h.KeepsLast || !lost)
	})
}

func unsettledAgain(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listenWith(agent, handling(func(brokers.Delivery) {}), works(cluster))
	events := e.sendMany(hub, source, cluster, 5)
	held := l.await(events...)
	// One is settled with the others around it unsettled.
	held[2].Done(nil)
	l.stop()
	e.close(agent)
	// Too late, and without effect.
	held[0].Done(nil)
	held[1].Done(errLater)

	second := e.agent(cluster)
	l = e.listen(second, works(cluster))
	unsettled := []event.Event{events[0], events[1], events[3], events[4]}
	for i, d := range l.await(unsettled...) {
		e.sameEvent(d.Event, unsettled[i])
	}
	l.stop()
	e.close(second)
	e.again(hub, source, cluster).never("it was acknowledged the second time", unsettled...)
}

func settledLater(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listenWith(agent, handling(func(brokers.Delivery) {}), works(cluster))
	events := e.sendMany(hub, source, cluster, 10)
	held := l.await(events...)

	// In reverse, each from a goroutine of its own.
	for _, d := range slices.Backward(held) {
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			d.Done(nil)
		}()
		e.receive(settled, "Done returned")
	}
	l.stop()
	e.close(agent)
	if e.h.Sessions {
		e.again(hub, source, cluster).never("it was acknowledged", events...)
	}
}

// oneUnsettled holds that an event that stays unsettled holds up no other until
// the driver's window is full, and that all goes on when it is settled.
func oneUnsettled(e *env) {
	const few, most = 10, 400 // Less than every window, and more than any.
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	var first string
	l := e.listenWith(agent, handling(func(d brokers.Delivery) {
		if first == "" {
			first = id(d.Event)
		}
		if id(d.Event) != first {
			d.Done(nil)
		}
	}), works(cluster))
	events := e.sendMany(hub, source, cluster, 1)
	unsettled := l.await(events...)[0]
	some := e.sendMany(hub, source, cluster, few)
	l.await(some...)
	rest := e.sendMany(hub, source, cluster, most)
	unsettled.Done(nil)
	l.await(rest...)
	l.stop()
	e.close(agent)
	if e.h.Sessions {
		e.again(hub, source, cluster).never("it was acknowledged", slices.Concat(events, some, rest)...)
	}
}

func blockedHandle(e *env) {
	const most = 300
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	l := e.listenWith(agent, handling(func(d brokers.Delivery) {
		select {
		case entered <- struct{}{}:
		default:
		}
		e.hold(release)
		d.Done(nil)
	}), works(cluster))
	events := e.sendMany(hub, source, cluster, 1)
	e.receive(entered, "the first event came")
	events = append(events, e.sendMany(hub, source, cluster, most)...)
	// The connection that cannot deliver can still publish.
	e.send(agent, toSource(source, cluster, ""), e.event())
	close(release)
	l.await(events...)
}
