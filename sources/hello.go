package sources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
)

const (
	// answersPerSecond is how many clusters are asked to answer a broadcast in
	// a second.
	answersPerSecond = 500

	// helloGrace is how long after the last moment a broadcast may be answered
	// before those that did not are asked one by one: broadcasts get lost.
	helloGrace = 30 * time.Second

	// keyHello and keyDigest are the keys of events that are not about one work.
	// A broker that keeps the last event per key keeps the newest.
	keyHello  = "hello"
	keyDigest = "digest"
)

// capabilities is what this end can do beyond OCM's protocol.
var capabilities = []string{codec.CapDigest, codec.CapZstd}

// spread is the time over which all clusters shall answer a Hello.
func (d *Dispatcher) spreadLocked() time.Duration {
	n := time.Duration(len(d.peers)) * time.Second / answersPerSecond
	return min(max(n, time.Second), codec.MaxSpread)
}

// helloAll tells all clusters that this source is here. Those that know digests
// answer with theirs.
func (d *Dispatcher) helloAll(ctx context.Context) {
	d.mu.Lock()
	spread := d.spreadLocked()
	d.mu.Unlock()
	err := d.hello(ctx, brokers.Topic{Lane: brokers.ToAllClusters, Source: d.id, Key: keyHello}, spread)
	if err != nil && ctx.Err() == nil && !errors.Is(err, brokers.ErrUnavailable) {
		d.once.warn("hello", "this source cannot announce itself to all clusters; it asks them one by one", "err", err)
	}
	d.mu.Lock()
	now := time.Now()
	d.askedAll, d.answersBy = now, now.Add(spread+helloGrace)
	var distrusted []string
	for cluster, p := range d.peers {
		if p.capable && p.online {
			d.expectLocked(cluster, spread+helloGrace)
		}
		if now.Before(p.plainUntil) {
			distrusted = append(distrusted, cluster)
		}
	}
	d.mu.Unlock()
	// What all were told is more than these shall hear, and the last word counts.
	for _, cluster := range distrusted {
		d.helloCluster(ctx, cluster)
	}
}

// helloCluster asks one cluster for its digest.
func (d *Dispatcher) helloCluster(ctx context.Context, cluster string) {
	d.mu.Lock()
	d.peerLocked(cluster).helloAt = time.Now()
	d.mu.Unlock()
	err := d.hello(ctx, brokers.Topic{Lane: brokers.ToCluster, Source: d.id, Cluster: cluster, Key: keyHello}, 0)
	if err != nil && ctx.Err() == nil && !errors.Is(err, brokers.ErrUnavailable) {
		d.once.warn("hello"+cluster, "cluster cannot be asked for its digest", "cluster", cluster, "err", err)
	}
}

func (d *Dispatcher) hello(ctx context.Context, to brokers.Topic, spread time.Duration) error {
	epoch, term := d.leadership()
	m := codec.Hello{Source: d.id, Epoch: epoch, Term: term, Capabilities: d.abilities(to.Cluster), Spread: spread}
	return d.announce(ctx, to, typeHello, m)
}

// announce sends one of the events that OCM does not have.
func (d *Dispatcher) announce(ctx context.Context, to brokers.Topic, typ string, m codec.Message) error {
	e, err := m.Encode(codec.Announce)
	if err != nil {
		return fmt.Errorf("encode %s: %w", typ, err)
	}
	return d.publish(ctx, to, typ, e)
}
