package brokertest

import (
	"errors"
	"sync"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func firstEstablishment(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	l := e.listen(e.agent(cluster), works(cluster))
	e.send(e.source(source), toCluster(source, cluster, ""), e.event())
	l.until("an event came", func() bool { return len(l.got) > 0 })
	if s := l.sessions(); len(s) != 1 || s[0].Resumed {
		e.Errorf("sessions of a new identity are %+v, want one, not resumed", s)
	}
}

func awayAndBack(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	filters := []brokers.Filter{works(cluster), {Lane: brokers.ToAllClusters, Source: source}}
	l := e.listen(agent, filters...)
	before := e.sendMany(hub, source, cluster, 1)
	l.await(before...)
	l.stop()
	e.close(agent)

	away := e.sendMany(hub, source, cluster, 100)
	if e.h.DurableBroadcast {
		ev := e.event()
		e.send(hub, brokers.Topic{Lane: brokers.ToAllClusters, Source: source}, ev)
		away = append(away, ev)
	}
	l = e.listen(e.agent(cluster), filters...)
	l.await(away...)
	if s := l.sessions()[0]; !s.Resumed {
		e.Errorf("the broker kept the session, but it is not said to be resumed")
	}
}

func lateSubscriber(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub := e.source(source)
	older, newer := make([]event.Event, 10), make([]event.Event, 10)
	for _, events := range [][]event.Event{older, newer} {
		for i := range events {
			events[i] = e.event()
			e.send(hub, toCluster(source, cluster, "key-"+long(i)), events[i])
		}
	}
	l := e.listen(e.agent(cluster), works(cluster))
	l.await(newer...)
	l.never("a newer one replaced it before anybody listened", older...)
}

func resume(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub := e.source(source)
	var (
		mu       sync.Mutex
		position string
	)
	ask := listening{resume: func() string {
		mu.Lock()
		defer mu.Unlock()
		return position
	}}
	// from lets a new connection of the agent begin after a position.
	from := func(p string) (*listener, brokers.Transport) {
		mu.Lock()
		position = p
		mu.Unlock()
		agent := e.agent(cluster)
		l := e.listenWith(agent, ask, works(cluster))
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.resumes < len(l.readies) {
			e.Errorf("Resume was asked %d times for %d establishments", l.resumes, len(l.readies))
		}
		return l, agent
	}

	l, agent := from("")
	events := e.sendMany(hub, source, cluster, 20)
	l.await(events...)
	all := l.deliveries()
	for _, d := range all {
		if d.Position == "" {
			e.Fatalf("event %s has no position", id(d.Event))
		}
	}
	if l.sessions()[0].Resumed {
		e.Errorf("a subscription without a position is said to be resumed")
	}
	l.stop()
	e.close(agent)

	// Everything is safe: only what comes now is delivered.
	l, agent = from(all[len(all)-1].Position)
	if !l.sessions()[0].Resumed {
		e.Errorf("the broker has all after the position, but the subscription is not said to be resumed")
	}
	l.await(e.sendMany(hub, source, cluster, 10)...)
	l.never("it was before the position", events...)
	l.stop()
	e.close(agent)

	// What came after the position comes again, settled or not.
	const safe = 7
	before := make(map[string]bool)
	for _, d := range all[:safe] {
		before[id(d.Event)] = true
	}
	var after []event.Event
	for _, d := range all[safe:] {
		if !before[id(d.Event)] {
			after = append(after, d.Event)
		}
	}
	l, agent = from(all[safe-1].Position)
	l.await(after...)
	l.stop()
	e.close(agent)

	// A subscriber that lost its disk gets everything.
	l, _ = from("")
	l.await(events...)
}

func resumeNotAsked(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listenWith(agent, listening{resume: func() string {
		e.Errorf("Resume was asked, though the broker keeps no log")
		return ""
	}}, works(cluster))
	events := e.sendMany(hub, source, cluster, 1)
	if p := l.await(events...)[0].Position; p != "" {
		e.Errorf("the position is %q, though the broker keeps no log", p)
	}
}

func subscribeAgain(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	for range 3 {
		l := e.listen(agent, works(cluster))
		l.await(e.sendMany(hub, source, cluster, 3)...)
		l.stop()
	}
}

func publishWithoutBroker(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))
	e.send(hub, toCluster(source, cluster, "before"), e.event())

	e.stopBroker()
	for range 3 {
		// The deadline of the case would show a call that waits for a broker.
		err := hub.Publish(e.ctx, toCluster(source, cluster, "stopped"), e.event())
		if !errors.Is(err, brokers.ErrUnavailable) {
			e.Errorf("Publish without a broker returned %v, want ErrUnavailable", err)
		}
		if e.ctx.Err() != nil {
			e.Errorf("Publish without a broker waited for %s", patience)
		}
	}
	e.startBroker()

	after := e.event()
	e.send(hub, toCluster(source, cluster, "after"), after)
	l.until("the subscription is back", func() bool { return len(l.readies) > 1 })
	if e.h.Sessions {
		l.await(after)
	}
}

func openWithoutBroker(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	e.stopBroker()
	hub, agent := e.source(source), e.agent(cluster)
	if err := hub.Publish(e.ctx, toCluster(source, cluster, ""), e.event()); !errors.Is(err, brokers.ErrUnavailable) {
		e.Errorf("Publish without a broker returned %v, want ErrUnavailable", err)
	}
	l := e.startListening(agent, listening{}, works(cluster))
	e.startBroker()
	l.until("the subscription is established", func() bool { return len(l.readies) > 0 })
	l.await(e.sendMany(hub, source, cluster, 1)...)
}

func restart(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))
	reported := e.listen(hub, reports(source))
	l.await(e.sendMany(hub, source, cluster, 1)...)

	for round := 1; round <= 3; round++ {
		e.stopBroker()
		for _, l := range []*listener{l, reported} {
			l.until("Down was called", func() bool { return len(l.downs) >= round })
		}
		e.startBroker()
		for _, l := range []*listener{l, reported} {
			l.until("the subscription is back", func() bool { return len(l.readies) >= round+1 && len(l.readies) > len(l.downs) })
		}
		l.await(e.sendMany(hub, source, cluster, 5)...)
		report := e.event()
		e.send(agent, toSource(source, cluster, ""), report)
		reported.await(report)
	}
	s := l.sessions()
	if s[0].Resumed {
		e.Errorf("the first session is said to be resumed")
	}
	for i, s := range s[1:] {
		if s.Resumed != e.h.Sessions {
			e.Errorf("after restart %d: resumed is %t, want %t", i+1, s.Resumed, e.h.Sessions)
		}
	}
}

// restartUnderLoad holds that what was acknowledged arrives, whatever happens
// around it.
func restartUnderLoad(e *env) {
	const publishers, each = 10, 30
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))

	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		sent []event.Event
	)
	some := make(chan struct{})
	for range publishers {
		wg.Go(func() {
			for range each {
				ev := e.event()
				if err := e.trySend(hub, toCluster(source, cluster, id(ev)), ev); err != nil {
					e.Errorf("publish: %v", err)
					return
				}
				mu.Lock()
				if sent = append(sent, ev); len(sent) == publishers*each/4 {
					close(some)
				}
				mu.Unlock()
			}
		})
	}
	e.receive(some, "a quarter was sent")
	e.stopBroker()
	e.startBroker()
	wg.Wait()
	if !e.Failed() {
		l.await(sent...)
	}
}

func wiped(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	// In a new log, positions are small enough to be grown past below.
	e.h.Wipe(e.T)
	hub, agent := e.source(source), e.agent(cluster)
	var last string
	var mu sync.Mutex
	how := listening{}
	if e.h.Log {
		how.resume = func() string {
			mu.Lock()
			defer mu.Unlock()
			return last
		}
	}
	l := e.listenWith(agent, how, works(cluster))
	l.await(e.sendMany(hub, source, cluster, 20)...)
	got := l.deliveries()
	mu.Lock()
	last = got[len(got)-1].Position
	mu.Unlock()

	e.h.Wipe(e.T)
	l.until("the subscription is back", func() bool { return len(l.readies) > 1 && len(l.readies) > len(l.downs) })
	if s := l.sessions()[1]; s.Resumed {
		e.Errorf("the broker lost everything, but the subscription is said to be resumed")
	}
	l.await(e.sendMany(hub, source, cluster, 3)...)
	l.stop()
	e.close(agent)

	// The log of the new data has grown past the old position when the agent
	// comes back with it. It still is no position of that log.
	e.h.Wipe(e.T)
	events := e.sendMany(hub, source, cluster, 50)
	l = e.listenWith(e.agent(cluster), how, works(cluster))
	if s := l.sessions()[0]; s.Resumed {
		e.Errorf("the broker lost everything while the subscriber was away, but the subscription is said to be resumed")
	}
	if e.h.KeepsLast {
		l.await(events...)
	}
}
