package brokertest

import (
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// lastWords is the configuration of an agent with a will, and the will's event.
func (e *env) lastWords(source, cluster string, delay time.Duration) (brokers.Config, event.Event) {
	ev := e.event()
	ev.Set("reason", "it is gone, ø")
	return brokers.Config{
		Role: brokers.RoleAgent, Name: cluster,
		Will: &brokers.Will{Topic: toSource(source, cluster, "presence"), Event: ev, Delay: delay},
	}, ev
}

func willOfLost(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	l := e.listen(e.source(source), reports(source))
	c, will := e.lastWords(source, cluster, 0)
	agent, cut := e.openFragile(c)
	alive := e.event()
	e.send(agent, toSource(source, cluster, "work"), alive)
	l.await(alive)
	l.never("the connection is up", will)
	cut()
	d := l.await(will)[0]
	e.sameEvent(d.Event, will)
	e.sameTopic(d.From, c.Will.Topic)
}

func noWillAfterClose(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	l := e.listen(e.source(source), reports(source))
	c, will := e.lastWords(source, cluster, 0)
	for range 2 {
		agent := e.open(c)
		e.send(agent, toSource(source, cluster, "work"), e.event())
		e.close(agent)
	}
	// A will that was due by the time of the second connection comes before
	// that of somebody who connects later.
	other, lost := e.lastWords(source, e.name("cluster"), 0)
	agent, cut := e.openFragile(other)
	e.send(agent, toSource(source, other.Name, "work"), e.event())
	cut()
	l.await(lost)
	l.never("its connection ended with Close", will)
}

func willWithDelay(e *env) {
	source, back, gone := e.name("source"), e.name("cluster"), e.name("cluster")
	l := e.listen(e.source(source), reports(source))
	returns, never := e.lastWords(source, back, time.Second)
	stays, will := e.lastWords(source, gone, 2*time.Second)
	lost := make([]func(), 0, 2)
	for _, c := range []brokers.Config{returns, stays} {
		agent, cut := e.openFragile(c)
		alive := e.event()
		e.send(agent, toSource(source, c.Name, "work"), alive)
		l.await(alive)
		lost = append(lost, cut)
	}
	// A broker may be slow, or this machine, so that the will is due before its
	// owner is back: only one that comes after the return is wrong.
	lost[0]()
	again := e.open(returns)
	alive := e.event()
	e.send(again, toSource(source, back, "work"), alive)
	l.await(alive)
	before := len(l.deliveries())
	lost[1]()
	l.await(will)
	for _, d := range l.deliveries()[before:] {
		if id(d.Event) == id(never) {
			e.Errorf("the will of an identity that had come back was published")
		}
	}
}
