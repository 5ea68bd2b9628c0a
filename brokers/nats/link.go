package nats

import (
	"context"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// checkInterval is how often a source looks whether its streams are still there.
const checkInterval = 15 * time.Second

// A link is a connection on which the streams are known to be there. It ends
// with the connection, or when a stream turns out to be gone.
type link struct {
	nc *natsgo.Conn
	js jetstream.JetStream
	// maxMessage is the largest message of each stream, where it is known.
	maxMessage map[string]int64
	// identities are those of the streams, for a source.
	identities map[brokers.Lane]string
	// doubts are the streams that were not themselves when last looked at.
	doubts map[brokers.Lane]bool

	ctx   context.Context
	end   context.CancelCauseFunc
	since time.Time
	wake  func()
}

// current returns the link, or an error that wraps ErrUnavailable or ErrClosed.
func (t *transport) current() (*link, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, brokers.ErrClosed
	case t.up == nil:
		return nil, fmt.Errorf("%w: %w", brokers.ErrUnavailable, t.down)
	}
	return t.up, nil
}

// await returns the link as soon as there is one, or the cause of ctx's end.
func (t *transport) await(ctx context.Context) (*link, error) {
	for {
		t.mu.Lock()
		up, changed := t.up, t.changed
		t.mu.Unlock()
		if up != nil && ctx.Err() == nil {
			return up, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// drop ends the link, if it is l or l is nil, and reports whether there was one.
func (t *transport) drop(l *link, reason error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.up == nil || l != nil && t.up != l {
		return false
	}
	t.up.end(reason)
	t.up, t.down = nil, reason
	close(t.changed)
	t.changed = make(chan struct{})
	return true
}

// restart ends l because something that it needs is gone. The next link looks
// for it, and whoever holds state sends it again when that is up.
func (t *transport) restart(l *link, reason error) {
	if !t.drop(l, reason) {
		return
	}
	t.log.Warn("broker lost what this connection needs", "err", reason)
	const stable = 30 * time.Second
	t.mu.Lock()
	if time.Since(l.since) > stable {
		t.restarts = 0
	}
	t.restarts++
	wait := backoff(t.restarts)
	t.mu.Unlock()
	time.AfterFunc(wait, l.wake)
}

// linkUp makes a link whenever there is a connection and none.
func (t *transport) linkUp(nc *natsgo.Conn, js jetstream.JetStream, wake, gone <-chan struct{}, poke func()) {
	failures, told := 0, ""
	retry := time.NewTimer(0)
	defer retry.Stop()
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for {
		select {
		case <-check.C:
			if l, err := t.current(); err == nil {
				t.check(l)
			}
			continue
		case <-t.ctx.Done():
			return
		case <-gone:
			return
		case <-wake:
		case <-retry.C:
		}
		t.mu.Lock()
		generation, up := t.generation, t.up != nil
		t.mu.Unlock()
		if up || !nc.IsConnected() {
			continue
		}
		l, err := t.prepare(nc, js)
		if err != nil {
			failures++
			t.unreachable(err)
			if err.Error() != told && nc.IsConnected() && t.ctx.Err() == nil {
				told = err.Error()
				t.log.Warn("broker is not ready for use, trying on", "err", err)
			}
			retry.Reset(backoff(failures))
			continue
		}
		failures, told = 0, ""
		l.wake = poke
		t.mu.Lock()
		// A connection lost meanwhile may be back already: it must be prepared anew.
		lost := t.generation != generation
		if !lost {
			t.up = l
			close(t.changed)
			t.changed = make(chan struct{})
		}
		t.mu.Unlock()
		if lost {
			l.end(nil)
			poke()
		}
	}
}
