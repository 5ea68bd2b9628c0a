package mem

import (
	"context"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// Subscribe implements [brokers.Transport].
func (t *transport) Subscribe(ctx context.Context, s brokers.Subscription) error {
	for _, f := range s.Filters {
		if err := f.Validate(); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	// Handle's context ends with the subscription's and with the transport.
	handling, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()

	for {
		l := t.connected(handling)
		if l == nil {
			break
		}
		if q, session, ok := t.establish(l, s); ok {
			if s.Ready != nil {
				s.Ready(session)
			}
			if reason := t.deliver(handling, l, q, s); reason == nil {
				break
			} else if t.ctx.Err() == nil && s.Down != nil {
				s.Down(reason)
			}
		}
	}
	if t.ctx.Err() != nil {
		return fmt.Errorf("subscribe: %w", brokers.ErrClosed)
	}
	return nil
}

// connected waits for a connection; it returns nil when ctx ends first.
func (t *transport) connected(ctx context.Context) *link {
	for ctx.Err() == nil {
		t.b.mu.Lock()
		l, up := t.link, t.up
		t.b.mu.Unlock()
		if l != nil {
			return l
		}
		select {
		case <-up:
		case <-ctx.Done():
		}
	}
	return nil
}

// establish attaches the subscription's queue to a connection; false if that
// is lost.
func (t *transport) establish(l *link, s brokers.Subscription) (*queue, brokers.Session, bool) {
	b := t.b
	position, resumable := "", b.opts.Log && s.Resume != nil
	if resumable {
		position = s.Resume()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.link != l {
		return nil, brokers.Session{}, false
	}
	q, resumed := b.queueLocked(t.id, s.Filters)
	if resumable {
		var after uint64
		after, resumed = b.parsePosition(position)
		q.rewind(after)
	}
	q.attach(l)
	return q, brokers.Session{Resumed: resumed}, true
}

// deliver hands events over until ctx ends, and then returns nil, or until the
// connection is lost, with the reason.
func (t *transport) deliver(ctx context.Context, l *link, q *queue, s brokers.Subscription) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		t.b.mu.Lock()
		if q.owner != l {
			t.b.mu.Unlock()
			<-l.lost
			return l.reason
		}
		if ctx.Err() != nil {
			q.detach()
			t.b.mu.Unlock()
			return nil
		}
		d, ok, wait := q.next(time.Now())
		t.b.mu.Unlock()
		if ok {
			s.Handle(ctx, d)
			continue
		}
		// No timer runs without a reason: within synctest, it would keep time
		// going for ever.
		timer.Stop()
		if wait > 0 {
			timer.Reset(wait)
		}
		select {
		case <-q.wake:
		case <-timer.C:
		case <-l.lost:
		case <-ctx.Done():
		}
	}
}
