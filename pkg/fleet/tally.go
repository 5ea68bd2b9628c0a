package fleet

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A counter counts from one.
type counter struct{ n atomic.Int64 }

func (c *counter) add() int { return int(c.n.Add(1)) }

// A tally counts what both ends publish.
type tally struct {
	toClusters, toHub traffic

	mu      sync.Mutex
	matched map[string]time.Time // When the hub last confirmed a cluster's digest.
}

// matchedSince is how many clusters the hub has told since then that they hold
// what it holds.
func (t *tally) matchedSince(since time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, at := range t.matched {
		if !at.Before(since) {
			n++
		}
	}
	return n
}

func (t *tally) match(cluster string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched[cluster] = time.Now()
}

// traffic is one direction.
type traffic struct{ events, bytes atomic.Int64 }

// Traffic is what one direction carried. Bytes are those of events, their
// attributes and data, without what the broker's protocol adds.
type Traffic struct {
	Events int64 `json:"events"`
	Bytes  int64 `json:"bytes"`
}

func (t *traffic) now() Traffic { return Traffic{t.events.Load(), t.bytes.Load()} }

func (t Traffic) since(before Traffic) Traffic {
	return Traffic{t.Events - before.Events, t.Bytes - before.Bytes}
}

// A counted transport counts what the broker took of it.
type counted struct {
	brokers.Transport

	tally *tally
	role  brokers.Role
}

// Publish implements brokers.Transport.
func (c counted) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	if err := c.Transport.Publish(ctx, to, e); err != nil {
		return err
	}
	t := &c.tally.toHub
	if c.role == brokers.RoleSource {
		t = &c.tally.toClusters
		if isMatch(e) {
			c.tally.match(to.Cluster)
		}
	}
	t.events.Add(1)
	t.bytes.Add(int64(e.Size()))
	return nil
}

// isMatch says whether the event is a codec.Match, without decoding it.
func isMatch(e event.Event) bool {
	return strings.HasPrefix(e.Get(event.Type), "io.fleetcast.") && strings.Contains(e.Get(event.Type), ".match")
}
