package sources

import (
	"context"
	"errors"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
)

const (
	// dropInterval is how often at most the source hears of drops of one cluster
	// for one reason.
	dropInterval = time.Minute

	// dropTries is how often the source is told of a drop that it could not
	// note.
	dropTries = 5

	// dropWorkers is how many calls of Noter.Dropped run at a time.
	dropWorkers = 4
)

// A drop is one event of a cluster that was dropped.
type drop struct {
	key    Key
	reason string
	err    error
}

// dropped has the source hear of a dropped event of a cluster, unless it heard
// of such a one just now.
func (d *Dispatcher) dropped(in brokers.Delivery, reason string, err error) {
	if d.source.noter == nil || in.From.Lane != brokers.ToSource || in.From.Source != d.id {
		return
	}
	if id, _, ok := codec.Identify(in.Event); ok {
		d.note(drop{Key{in.From.Cluster, id}, reason, err})
	}
}

func (d *Dispatcher) note(n drop) {
	if d.source.noter == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, now := d.peerLocked(n.key.Cluster), time.Now()
	if last, ok := p.notedAt[n.reason]; ok && now.Sub(last) < dropInterval {
		return
	}
	if p.notedAt == nil {
		p.notedAt = map[string]time.Time{}
	}
	p.notedAt[n.reason] = now
	d.unnoted[n.key.Cluster] = append(d.unnoted[n.key.Cluster], n)
	d.drops.Add(n.key.Cluster, struct{}{})
}

func (d *Dispatcher) tellDrops(ctx context.Context) {
	for {
		cluster, none, ok := d.drops.Get(ctx)
		if !ok {
			return
		}
		d.tellDropsOf(ctx, cluster)
		d.drops.Done(cluster, none)
	}
}

// tellDropsOf gives up on drops that the source cannot note: they were counted
// and logged, and there is nothing that depends on them.
func (d *Dispatcher) tellDropsOf(ctx context.Context, cluster string) {
	d.mu.Lock()
	drops := d.unnoted[cluster]
	delete(d.unnoted, cluster)
	d.mu.Unlock()
	var failed []drop
	var errs []error
	for _, n := range drops {
		if err := d.source.Dropped(ctx, n.key, n.reason, n.err); err != nil {
			failed, errs = append(failed, n), append(errs, err)
		}
	}
	if ctx.Err() != nil {
		return
	}
	if len(failed) == 0 || d.drops.Failures(cluster, struct{}{}) >= dropTries {
		d.drops.Forget(cluster, struct{}{})
		if len(failed) > 0 {
			d.once.warn("unnoted"+cluster, "source could not note that events of a cluster were dropped",
				"cluster", cluster, "err", errors.Join(errs...))
		}
		return
	}
	d.mu.Lock()
	d.unnoted[cluster] = append(failed, d.unnoted[cluster]...)
	d.mu.Unlock()
	d.drops.Retry(cluster, struct{}{})
}
