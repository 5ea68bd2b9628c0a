package brokertest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// wild are names that mean more than themselves to some broker, or would end
// a level of its topics.
var wild = []string{"", "*", "+", "#", ">", "a+", "a#", "a*", "a>", "$SYS", "a/b", "a b", "a\tb", "a\nb", "a\x00b", "\xff", strings.Repeat("x", 254)}

func invalidTopics(e *env) {
	hub := e.source(e.name("source"))
	topics := []brokers.Topic{
		{},
		{Lane: brokers.ToAllSources + 1, Source: "s", Cluster: "c"},
		{Lane: brokers.ToAllClusters, Source: "s", Cluster: "c"},
		{Lane: brokers.ToAllSources, Source: "s", Cluster: "c"},
		{Lane: brokers.ToCluster, Source: "s"},
		{Lane: brokers.ToSource, Cluster: "c"},
		{Lane: brokers.ToAllClusters},
		{Lane: brokers.ToAllSources},
	}
	for _, name := range wild {
		topics = append(topics, toCluster("s", name, ""), toCluster(name, "c", ""), toSource(name, "c", ""),
			brokers.Topic{Lane: brokers.ToAllClusters, Source: name}, brokers.Topic{Lane: brokers.ToAllSources, Cluster: name})
	}
	for _, to := range topics {
		if err := hub.Publish(e.ctx, to, e.event()); !errors.Is(err, brokers.ErrInvalidTopic) {
			e.Errorf("publish to %+v returned %v, want ErrInvalidTopic", to, err)
		}
	}
}

func invalidFilters(e *env) {
	agent := e.agent(e.name("cluster"))
	filters := []brokers.Filter{
		{},
		{Lane: brokers.ToAllSources + 1, Source: "s", Cluster: "c"},
		{Lane: brokers.ToAllClusters, Source: "s", Cluster: "c"},
		{Lane: brokers.ToAllSources, Source: "s", Cluster: "c"},
	}
	for _, name := range wild {
		if name != brokers.Any {
			filters = append(filters, brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: name},
				brokers.Filter{Lane: brokers.ToSource, Source: name, Cluster: brokers.Any})
		}
	}
	for _, f := range filters {
		err := agent.Subscribe(e.ctx, brokers.Subscription{
			// One wrong filter among right ones spoils them all.
			Filters: []brokers.Filter{works("c"), f},
			Handle:  func(_ context.Context, d brokers.Delivery) { d.Done(nil) },
			Ready:   func(brokers.Session) { e.Errorf("subscription to %+v was established", f) },
		})
		if !errors.Is(err, brokers.ErrInvalidTopic) {
			e.Errorf("subscribe to %+v returned %v, want ErrInvalidTopic", f, err)
		}
	}
}

func wildcards(e *env) {
	s1, s2, c1, c2 := e.name("source"), e.name("source"), e.name("cluster"), e.name("cluster")
	hub1, hub2, agent1, agent2 := e.source(s1), e.source(s2), e.agent(c1), e.agent(c2)
	anySource := e.listen(agent1, works(c1))
	oneSource := e.listen(agent2, brokers.Filter{Lane: brokers.ToCluster, Source: s1, Cluster: c2})
	anyCluster := e.listen(hub1, reports(s1))
	oneCluster := e.listen(hub2, brokers.Filter{Lane: brokers.ToSource, Source: s2, Cluster: c1})

	sent := func(tr brokers.Transport, to brokers.Topic) event.Event {
		ev := e.event()
		e.send(tr, to, ev)
		return ev
	}
	check := func(l *listener, topics []brokers.Topic, events []event.Event) {
		for i, d := range l.await(events...) {
			e.sameTopic(d.From, topics[i])
		}
	}
	t11, t21 := toCluster(s1, c1, "k"), toCluster(s2, c1, "k")
	check(anySource, []brokers.Topic{t11, t21}, []event.Event{sent(hub1, t11), sent(hub2, t21)})

	t22, t12 := toCluster(s2, c2, "k"), toCluster(s1, c2, "k")
	other := sent(hub2, t22)
	check(oneSource, []brokers.Topic{t12}, []event.Event{sent(hub1, t12)})
	oneSource.never("it is another source's", other)

	r11, r12 := toSource(s1, c1, "k"), toSource(s1, c2, "k")
	check(anyCluster, []brokers.Topic{r11, r12}, []event.Event{sent(agent1, r11), sent(agent2, r12)})

	r22, r21 := toSource(s2, c2, "k"), toSource(s2, c1, "k")
	other = sent(agent2, r22)
	check(oneCluster, []brokers.Topic{r21}, []event.Event{sent(agent1, r21)})
	oneCluster.never("it is another cluster's", other)
}

func broadcasts(e *env) {
	s1, s2, c1, c2 := e.name("source"), e.name("source"), e.name("cluster"), e.name("cluster")
	hub1, hub2, agent1, agent2 := e.source(s1), e.source(s2), e.agent(c1), e.agent(c2)
	fromAll := brokers.Filter{Lane: brokers.ToAllClusters, Source: brokers.Any}
	all1, all2 := e.listen(agent1, fromAll, works(c1)), e.listen(agent2, fromAll, works(c2))
	one := e.listen(hub1, brokers.Filter{Lane: brokers.ToAllSources, Cluster: c1}, reports(s1))
	every := e.listen(hub2, brokers.Filter{Lane: brokers.ToAllSources, Cluster: brokers.Any}, reports(s2))

	for _, test := range []struct {
		from      brokers.Transport
		to        brokers.Topic
		listeners []*listener
	}{
		{hub1, brokers.Topic{Lane: brokers.ToAllClusters, Source: s1}, []*listener{all1, all2}},
		{hub2, brokers.Topic{Lane: brokers.ToAllClusters, Source: s2}, []*listener{all1, all2}},
		{agent2, brokers.Topic{Lane: brokers.ToAllSources, Cluster: c2}, []*listener{every}},
		{agent1, brokers.Topic{Lane: brokers.ToAllSources, Cluster: c1}, []*listener{one, every}},
		// The other lane of the same subscription is served beside it.
		{hub1, toCluster(s1, c1, ""), []*listener{all1}},
		{agent1, toSource(s1, c1, ""), []*listener{one}},
	} {
		ev := e.event()
		e.send(test.from, test.to, ev)
		for _, l := range test.listeners {
			d := l.await(ev)[0]
			e.sameTopic(d.From, test.to)
			e.sameEvent(d.Event, ev)
		}
	}
}

func onlyFilters(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	longer := []string{cluster + "0", cluster + ".0", cluster + "-0", "x" + cluster, "x." + cluster}
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))

	var foreign []event.Event
	send := func(tr brokers.Transport, to brokers.Topic) {
		ev := e.event()
		e.send(tr, to, ev)
		foreign = append(foreign, ev)
	}
	for _, c := range longer {
		send(hub, toCluster(source, c, "k"))
	}
	send(hub, toCluster(cluster, e.name("cluster"), "k")) // A source called like the cluster.
	send(hub, brokers.Topic{Lane: brokers.ToAllClusters, Source: source})
	send(agent, toSource(source, cluster, "k"))
	send(agent, brokers.Topic{Lane: brokers.ToAllSources, Cluster: cluster})

	mine := e.event()
	e.send(hub, toCluster(source, cluster, "k"), mine)
	l.await(mine)
	l.never("the filter does not match it", foreign...)
}

func namesApart(e *env) {
	base := e.name("n")
	label := base + strings.Repeat("x", 63-len(base))
	// A driver may refuse a name of the second kind, and must not mix it up.
	for _, test := range []struct {
		refusable bool
		names     []string
	}{
		{false, []string{
			base, base + ".eu.example.com", base + "..", base + "-", base + "_", "." + base, strings.ToUpper(base),
			label, label + "." + label + "." + label + "." + label[:61],
		}},
		{true, []string{
			base + "%2Eeu", base + "%2eeu", base + "_2E", base + "=2E", base + "~", base + "\\", base + "\\.", base + ":", base + "ü", base + "世界",
			base + `"`, base + "'", base + "%", base + "%25", base + "?", base + "&", base + "=", base + "@", base + "!", base + "(", base + "{", base + "[", base + ",", base + "|",
		}},
	} {
		for _, name := range test.names {
			e.oneName(name, test.refusable)
		}
	}
}

// oneName holds that both directions work for a cluster and a source of this
// name. That no other name gets their events is checked by every listener.
func (e *env) oneName(name string, refusable bool) {
	e.Helper()
	hub, agent := e.source(name), e.agent(name)
	defer e.close(hub)
	defer e.close(agent)
	probe := toCluster(name, name, name)
	if err := e.trySend(hub, probe, e.event()); err != nil {
		if !refusable || !errors.Is(err, brokers.ErrInvalidTopic) {
			e.Errorf("publish to %s: %v", probe, err)
		}
		return
	}
	heard := e.listen(agent, brokers.Filter{Lane: brokers.ToCluster, Source: name, Cluster: name})
	reported := e.listen(hub, brokers.Filter{Lane: brokers.ToSource, Source: name, Cluster: name})
	for _, test := range []struct {
		from brokers.Transport
		to   brokers.Topic
		by   *listener
	}{
		{hub, probe, heard},
		{agent, toSource(name, name, name), reported},
	} {
		ev := e.event()
		e.send(test.from, test.to, ev)
		e.sameTopic(test.by.await(ev)[0].From, test.to)
	}
	heard.stop()
	reported.stop()
}

func keysApart(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	keys := []string{
		"", "k", "K", "7a9f0f3e-6c4b-5d2a-9d3c-1c2e3f4a5b6c", "default/nginx", "default.nginx", "default%2Fnginx",
		"a.b.c", "a..b", ".", "..", "*", ">", "+", "#", "a b", " ", "$JS.API", "ü", "世界", "%", "_", "-", "=", "a\nb", long(512),
	}
	// All are sent before anybody listens, where the broker keeps them.
	var l *listener
	if !e.h.KeepsLast {
		l = e.listen(agent, works(cluster))
	}
	events := make([]event.Event, len(keys))
	for i, key := range keys {
		events[i] = e.event()
		e.send(hub, toCluster(source, cluster, key), events[i])
	}
	if e.h.KeepsLast {
		l = e.listen(agent, works(cluster))
	}
	for i, d := range l.await(events...) {
		e.sameTopic(d.From, toCluster(source, cluster, keys[i]))
	}
}

func orderPerTopic(e *env) {
	const topics, each = 10, 30
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	// Nothing is handled until all is sent, so that there is an order to lose.
	release := make(chan struct{})
	l := e.listenWith(agent, listening{handle: func(_ context.Context, d brokers.Delivery) {
		e.hold(release)
		d.Done(nil)
	}}, works(cluster))

	number := make(map[string]int) // Of an event, in its topic.
	all, last := make([]event.Event, 0, topics*each), make([]event.Event, topics)
	for n := range each {
		for topic := range topics {
			ev := e.event()
			ev.Set("topicnumber", fmt.Sprint(topic))
			number[id(ev)] = n
			all, last[topic] = append(all, ev), ev
			e.send(hub, toCluster(source, cluster, fmt.Sprint(topic)), ev)
		}
	}
	close(release)
	if e.h.KeepsLast {
		l.await(last...)
	} else {
		l.await(all...)
	}
	seen, newest := make(map[string]bool), make(map[string]int)
	for _, d := range l.deliveries() {
		topic, n := d.Event.Get("topicnumber"), number[id(d.Event)]
		if !seen[id(d.Event)] && n < newest[topic] {
			e.Errorf("event %d of a topic came first after event %d of the same", n, newest[topic])
		}
		seen[id(d.Event)], newest[topic] = true, max(newest[topic], n)
	}
}

func twoSubscriptions(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	blocked, release := make(chan struct{}, 1), make(chan struct{})
	first := e.listenWith(agent, listening{handle: func(_ context.Context, d brokers.Delivery) {
		select {
		case blocked <- struct{}{}:
		default:
		}
		e.hold(release)
		d.Done(nil)
	}}, works(cluster))
	second := e.listen(agent, brokers.Filter{Lane: brokers.ToAllClusters, Source: source})
	defer first.stop()

	work, question := e.event(), e.event()
	e.send(hub, toCluster(source, cluster, ""), work)
	e.receive(blocked, "the first subscription got its event")
	// The first one's Handle blocks, which must not hold up the second.
	e.send(hub, brokers.Topic{Lane: brokers.ToAllClusters, Source: source}, question)
	second.await(question)
	close(release)
	first.await(work)

	// Ending one leaves the other.
	second.stop()
	again := e.event()
	e.send(hub, toCluster(source, cluster, ""), again)
	first.await(again)
}

// receive waits for a value or the end of c.
func (e *env) receive(c <-chan struct{}, what string) {
	e.Helper()
	select {
	case <-c:
	case <-e.ctx.Done():
		e.Fatalf("waited %s until %s", patience, what)
	}
}

// hold blocks a handler until c is closed, or the case has failed anyway.
func (e *env) hold(c <-chan struct{}) {
	select {
	case <-c:
	case <-e.ctx.Done():
	}
}
