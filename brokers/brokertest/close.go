package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func cancelSubscribe(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent, other := e.source(source), e.agent(cluster), e.agent(e.name("cluster"))
	entered := make(chan struct{}, 1)
	var finished atomic.Bool
	var l *listener
	canceled := make(chan struct{})
	l = e.listenWith(agent, listening{handle: func(ctx context.Context, d brokers.Delivery) {
		select {
		case entered <- struct{}{}:
		default:
		}
		// Events that come after the cancellation, if any, find it done.
		e.hold(canceled)
		if ctx.Err() == nil {
			e.hold(ctx.Done())
		}
		// A Subscribe that returns too early has its chance to.
		select {
		case <-l.returned:
		case <-time.After(100 * time.Millisecond):
		}
		finished.Store(true)
		d.Done(nil)
	}}, works(cluster))
	e.send(hub, toCluster(source, cluster, "a"), e.event())
	e.receive(entered, "Handle was called")
	l.cancel()
	close(canceled)
	e.receive(l.returned, "Subscribe returned")
	if l.err != nil {
		e.Errorf("Subscribe returned %v after its context ended, want nil", l.err)
	}
	if !finished.Load() {
		e.Errorf("Subscribe returned while Handle was running")
	}

	// Nothing is handled from here on; the listener fails the case if it is.
	heard := e.listen(other, brokers.Filter{Lane: brokers.ToAllClusters, Source: source})
	e.send(hub, toCluster(source, cluster, "b"), e.event())
	ev := e.event()
	e.send(hub, brokers.Topic{Lane: brokers.ToAllClusters, Source: source}, ev)
	heard.await(ev)
}

func closed(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub := e.source(source)
	e.send(hub, toCluster(source, cluster, ""), e.event())
	l := e.listen(hub, reports(source))
	e.close(hub)
	e.receive(l.returned, "Subscribe returned after Close")

	handle := func(_ context.Context, d brokers.Delivery) { d.Done(nil) }
	for call, err := range map[string]error{
		"Publish":   hub.Publish(e.ctx, toCluster(source, cluster, ""), e.event()),
		"Subscribe": hub.Subscribe(e.ctx, brokers.Subscription{Filters: []brokers.Filter{reports(source)}, Handle: handle}),
		"Close":     hub.Close(e.ctx),
	} {
		if !errors.Is(err, brokers.ErrClosed) {
			e.Errorf("%s after Close returned %v, want ErrClosed", call, err)
		}
	}
}

func closeFlushes(e *env) {
	const publishers = 100
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))
	e.send(hub, toCluster(source, cluster, "first"), e.event())

	var (
		wg            sync.WaitGroup
		mu            sync.Mutex
		sent, refused []event.Event
	)
	some := make(chan struct{}, publishers)
	for i := range publishers {
		wg.Go(func() {
			ev := e.event()
			err := hub.Publish(e.ctx, toCluster(source, cluster, fmt.Sprint(i)), ev)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				sent = append(sent, ev)
			case errors.Is(err, brokers.ErrClosed):
				refused = append(refused, ev)
			default:
				e.Errorf("Publish beside Close returned %v, want nil or ErrClosed", err)
			}
			some <- struct{}{}
		})
	}
	e.receive(some, "a publisher returned")
	e.close(hub)
	wg.Wait()
	l.await(sent...)
	l.never("Close did not wait for its confirmation: Publish returned ErrClosed", refused...)
}

func closeImpatiently(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub := e.source(source)
	e.send(hub, toCluster(source, cluster, ""), e.event())
	l := e.listen(hub, reports(source))
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	// What it returns is the driver's business; that it returns, and leaves
	// nothing behind, is not.
	_ = hub.Close(ended)
	e.receive(l.returned, "Subscribe returned after Close")
}

// closeWithoutBroker holds that a transport which tries to connect, or to
// connect again, can be closed and leaves no goroutine.
func closeWithoutBroker(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	before := goleak.IgnoreCurrent()
	hub := e.source(source)
	e.send(hub, toCluster(source, cluster, ""), e.event())
	lost := e.listen(hub, reports(source))
	e.stopBroker()
	lost.until("Down was called", func() bool { return len(lost.downs) > 0 })
	agent := e.agent(cluster)
	never := e.startListening(agent, listening{}, works(cluster))

	e.close(hub)
	e.close(agent)
	for _, l := range []*listener{lost, never} {
		e.receive(l.returned, "Subscribe returned after Close")
	}
	noLeak(e.T, append([]goleak.Option{before}, e.h.Ignore...))
	e.startBroker()
}
