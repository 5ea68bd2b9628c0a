package nats_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// patience bounds what a failing test waits.
const patience = 60 * time.Second

func newEvent() event.Event {
	e := event.New("io.fleetcast.test", "test", time.Now(), 0)
	e.Data = []byte("{}")
	return e
}

// openFor opens a transport that is closed with the test.
func openFor(tb testing.TB, s *testServer, c brokers.Config) brokers.Transport {
	tb.Helper()
	tr := open(tb, s.url, c)
	tb.Cleanup(func() { closeNow(tb, tr) })
	return tr
}

func closeNow(tb testing.TB, tr brokers.Transport) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := tr.Close(ctx); err != nil && !errors.Is(err, brokers.ErrClosed) {
		tb.Errorf("close: %v", err)
	}
}

// A listener is a running subscription.
type listener struct {
	deliveries chan brokers.Delivery
	readies    chan brokers.Session
	cancel     context.CancelFunc
	returned   chan error
}

// subscribe subscribes, waits until the subscription is established and then
// acknowledges what comes.
func subscribe(tb testing.TB, tr brokers.Transport, resume func() string, filters ...brokers.Filter) *listener {
	tb.Helper()
	l := listen(tb, tr, resume, func(d brokers.Delivery) { d.Done(nil) }, filters...)
	l.ready(tb)
	return l
}

func listen(tb testing.TB, tr brokers.Transport, resume func() string, settle func(brokers.Delivery), filters ...brokers.Filter) *listener {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{
		deliveries: make(chan brokers.Delivery, 10_000), readies: make(chan brokers.Session, 100),
		cancel: cancel, returned: make(chan error, 1),
	}
	go func() {
		l.returned <- tr.Subscribe(ctx, brokers.Subscription{
			Filters: filters,
			Handle: func(_ context.Context, d brokers.Delivery) {
				settle(d)
				l.deliveries <- d
			},
			Ready:  func(s brokers.Session) { l.readies <- s },
			Resume: resume,
		})
	}()
	tb.Cleanup(cancel)
	return l
}

func (l *listener) ready(tb testing.TB) brokers.Session {
	tb.Helper()
	select {
	case s := <-l.readies:
		return s
	case <-time.After(patience):
		tb.Fatalf("not established after %s", patience)
		return brokers.Session{}
	}
}

func (l *listener) next(tb testing.TB) brokers.Delivery {
	tb.Helper()
	select {
	case d := <-l.deliveries:
		return d
	case <-time.After(patience):
		tb.Fatalf("no event after %s", patience)
		return brokers.Delivery{}
	}
}

// await waits for one event, past others.
func (l *listener) await(tb testing.TB, e event.Event) brokers.Delivery {
	tb.Helper()
	for {
		if d := l.next(tb); d.Event.Get(event.ID) == e.Get(event.ID) {
			return d
		}
	}
}

func (l *listener) stop(tb testing.TB) {
	tb.Helper()
	l.cancel()
	select {
	case err := <-l.returned:
		if err != nil {
			tb.Fatalf("Subscribe: %v", err)
		}
	case <-time.After(patience):
		tb.Fatalf("Subscribe did not return within %s", patience)
	}
}

// send publishes as soon as there is a connection.
func send(tb testing.TB, tr brokers.Transport, to brokers.Topic, e event.Event) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := tr.Publish(ctx, to, e)
		if err == nil {
			return
		}
		if !errors.Is(err, brokers.ErrUnavailable) {
			tb.Fatal(err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			tb.Fatal(err)
		}
	}
}

// publish publishes an event and waits until l has it.
func publish(tb testing.TB, tr brokers.Transport, l *listener, to brokers.Topic) brokers.Delivery {
	tb.Helper()
	e := newEvent()
	send(tb, tr, to, e)
	return l.await(tb, e)
}

// A cursor is what an agent keeps on its disk.
type cursor struct {
	mu       sync.Mutex
	position string
}

func (c *cursor) get() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.position
}

func (c *cursor) set(position string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.position = position
}
