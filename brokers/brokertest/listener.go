package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A listener is one running subscription and what it heard. It holds every
// driver to what is true of each subscription: deliveries match the filters
// and are valid, one at a time, none before Ready or after Subscribe returned,
// and Ready and Down take turns.
type listener struct {
	e       *env
	filters []brokers.Filter
	cancel  context.CancelFunc
	// returned is closed when Subscribe has returned err.
	returned chan struct{}
	err      error

	mu       sync.Mutex
	changed  chan struct{} // Closed and replaced by every change below.
	got      []brokers.Delivery
	readies  []brokers.Session
	downs    []error
	resumes  int
	handling bool
	over     bool
}

// A listening says what a listener does other than settling each event with
// nil.
type listening struct {
	handle func(context.Context, brokers.Delivery)
	resume func() string
}

// listen subscribes and waits until the subscription is established.
func (e *env) listen(tr brokers.Transport, filters ...brokers.Filter) *listener {
	e.Helper()
	return e.listenWith(tr, listening{}, filters...)
}

func (e *env) listenWith(tr brokers.Transport, how listening, filters ...brokers.Filter) *listener {
	e.Helper()
	l := e.startListening(tr, how, filters...)
	l.until("the subscription is established", func() bool { return len(l.readies) > 0 })
	return l
}

func (e *env) startListening(tr brokers.Transport, how listening, filters ...brokers.Filter) *listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{
		e: e, filters: filters, cancel: cancel,
		returned: make(chan struct{}), changed: make(chan struct{}),
	}
	s := brokers.Subscription{
		Filters: filters,
		Handle:  func(ctx context.Context, d brokers.Delivery) { l.handle(ctx, d, how.handle) },
		Ready:   l.ready,
		Down:    l.down,
	}
	if how.resume != nil {
		s.Resume = func() string {
			l.change(func() { l.resumes++ })
			return how.resume()
		}
	}
	go func() {
		defer close(l.returned)
		l.err = tr.Subscribe(ctx, s)
		l.change(func() { l.over = true })
	}()
	e.Cleanup(func() {
		cancel()
		select {
		case <-l.returned:
		case <-time.After(patience):
			e.Errorf("Subscribe did not return within %s after its context ended", patience)
			return
		}
		if l.err != nil && !errors.Is(l.err, brokers.ErrClosed) {
			e.Errorf("Subscribe: %v", l.err)
		}
	})
	return l
}

func (l *listener) handle(ctx context.Context, d brokers.Delivery, then func(context.Context, brokers.Delivery)) {
	if err := d.From.Validate(); err != nil {
		l.e.Errorf("delivery from %+v, which is no exact topic: %v", d.From, err)
	}
	if !slices.ContainsFunc(l.filters, func(f brokers.Filter) bool { return f.Matches(d.From) }) {
		l.e.Errorf("delivery from %s, which none of the filters %v matches", d.From, l.filters)
	}
	if err := d.Event.Validate(); err != nil {
		l.e.Errorf("delivery of an invalid event: %v", err)
	}
	l.change(func() {
		if l.over {
			l.e.Errorf("Handle called after Subscribe returned")
		}
		if len(l.readies) == 0 {
			l.e.Errorf("Handle called before Ready")
		}
		if l.handling {
			l.e.Errorf("Handle called while it was running")
		}
		l.handling = true
		l.got = append(l.got, d)
	})
	defer l.change(func() { l.handling = false })
	if then != nil {
		then(ctx, d)
		return
	}
	d.Done(nil)
}

func (l *listener) ready(s brokers.Session) {
	l.change(func() {
		if len(l.readies) != len(l.downs) {
			l.e.Errorf("Ready called %d times with %d calls of Down before: want them to take turns", len(l.readies)+1, len(l.downs))
		}
		l.readies = append(l.readies, s)
	})
}

func (l *listener) down(err error) {
	l.change(func() {
		if len(l.readies) != len(l.downs)+1 {
			l.e.Errorf("Down called %d times with %d calls of Ready before: want them to take turns", len(l.downs)+1, len(l.readies))
		}
		if err == nil {
			l.e.Errorf("Down called without a reason")
		}
		l.downs = append(l.downs, err)
	})
}

// change changes the listener and wakes whoever waits on it.
func (l *listener) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// until waits until cond, which runs under the lock, holds.
func (l *listener) until(what string, cond func() bool) {
	l.e.Helper()
	for {
		l.mu.Lock()
		ok, changed, state := cond(), l.changed, l.stateLocked()
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-l.e.ctx.Done():
			l.e.Fatalf("waited %s until %s; %s", patience, what, state)
		}
	}
}

func (l *listener) stateLocked() string {
	return fmt.Sprintf("%d deliveries, %d times ready, %d times down, Subscribe returned: %t (%v)",
		len(l.got), len(l.readies), len(l.downs), l.over, l.downs)
}

// deliveries returns a copy of what came so far.
func (l *listener) deliveries() []brokers.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

func (l *listener) sessions() []brokers.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.readies)
}

// await waits until every event came at least once, and returns the first
// delivery of each.
func (l *listener) await(events ...event.Event) []brokers.Delivery {
	l.e.Helper()
	first := make(map[string]brokers.Delivery, len(events))
	seen := 0
	l.until(fmt.Sprintf("all of %d events came", len(events)), func() bool {
		for ; seen < len(l.got); seen++ {
			if _, ok := first[id(l.got[seen].Event)]; !ok {
				first[id(l.got[seen].Event)] = l.got[seen]
			}
		}
		return !slices.ContainsFunc(events, func(ev event.Event) bool {
			_, ok := first[id(ev)]
			return !ok
		})
	})
	out := make([]brokers.Delivery, 0, len(events))
	for _, ev := range events {
		out = append(out, first[id(ev)])
	}
	return out
}

// never fails the case if any of the events has come.
func (l *listener) never(why string, events ...event.Event) {
	l.e.Helper()
	for _, d := range l.deliveries() {
		for _, ev := range events {
			if id(d.Event) == id(ev) {
				l.e.Errorf("event %s came, from %s: %s", id(ev), d.From, why)
			}
		}
	}
}

// stop ends the subscription and waits until Subscribe returned.
func (l *listener) stop() {
	l.e.Helper()
	l.cancel()
	select {
	case <-l.returned:
	case <-l.e.ctx.Done():
		l.e.Fatalf("Subscribe did not return after its context ended")
	}
	if l.err != nil {
		l.e.Fatalf("Subscribe returned %v after its context ended, want nil", l.err)
	}
}

// sameEvent compares all attributes and the body. No broker tells a body of no
// bytes from none.
func (e *env) sameEvent(got, want event.Event) {
	e.Helper()
	if diff := cmp.Diff(maps.Collect(want.All()), maps.Collect(got.All())); diff != "" {
		e.Errorf("attributes changed on the way (-sent +delivered):\n%s", diff)
	}
	if string(got.Data) != string(want.Data) {
		e.Errorf("body changed on the way: %d bytes sent, %d delivered", len(want.Data), len(got.Data))
	}
}

// sameTopic compares an address with where the event was sent. The key may be
// missing, never wrong.
func (e *env) sameTopic(got, want brokers.Topic) {
	e.Helper()
	if got.Key == "" && !e.h.KeepsLast {
		want.Key = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("wrong address (-sent to +delivered from):\n%s", diff)
	}
}
