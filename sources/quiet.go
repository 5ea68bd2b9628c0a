package sources

import (
	"context"
	"time"
)

const (
	// quietAfter is how long after the last publish to a cluster it is looked at
	// whether all of it arrived, quietMax how long after the first one at most.
	quietAfter = 10 * time.Second
	quietMax   = time.Minute
)

// A vigil waits for a proof that a cluster has what was published to it, or
// for its digest.
type vigil struct {
	first, last time.Time     // Publishes; zero if there was none.
	wanted      time.Time     // A digest is wanted that comes after this; zero if none is.
	pause       time.Duration // After the last Hello.
}

// published begins a vigil for what was published to a cluster just now.
func (d *Dispatcher) published(cluster string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, now := d.vigilLocked(cluster), time.Now()
	if v.first.IsZero() || v.pause > 0 {
		v.first, v.pause = now, 0
		d.checks.AddAfter(cluster, struct{}{}, quietAfter)
	}
	v.last = now
}

// expectLocked asks a cluster for its digest if none came after some time, and
// not before ComparePause since it was last asked.
func (d *Dispatcher) expectLocked(cluster string, wait time.Duration) {
	now := time.Now()
	d.vigilLocked(cluster).wanted = now
	wait = max(wait, d.options.ComparePause-now.Sub(d.peerLocked(cluster).helloAt))
	d.checks.AddAfter(cluster, struct{}{}, wait)
}

func (d *Dispatcher) vigilLocked(cluster string) *vigil {
	v, ok := d.vigils[cluster]
	if !ok {
		v = &vigil{}
		d.vigils[cluster] = v
	}
	return v
}

func (d *Dispatcher) keepVigils(ctx context.Context) {
	for d.gate.wait(ctx) {
		cluster, none, ok := d.checks.Get(ctx)
		if !ok {
			return
		}
		d.checkCluster(ctx, cluster)
		d.checks.Done(cluster, none)
	}
}

// checkCluster ends a vigil, or asks the cluster for its digest.
func (d *Dispatcher) checkCluster(ctx context.Context, cluster string) {
	d.mu.Lock()
	v, ok := d.vigils[cluster]
	if !ok {
		d.mu.Unlock()
		return
	}
	now := time.Now()
	wait := v.quietIn(now)
	if p := d.peerLocked(cluster); p.heardAt.Before(d.askedAll) {
		// Its answer may be coming: all clusters were asked, and spread theirs.
		wait = max(wait, d.answersBy.Sub(now))
	}
	if wait > 0 {
		d.mu.Unlock()
		d.checks.AddAfter(cluster, struct{}{}, wait)
		return
	}
	last := v.last
	d.mu.Unlock()

	held, err := d.source.Held(ctx, cluster)
	if err != nil {
		if ctx.Err() == nil {
			d.checks.Retry(cluster, struct{}{})
		}
		return
	}
	d.checks.Forget(cluster, struct{}{})
	d.settleFlights(cluster, held)

	d.mu.Lock()
	p := d.peerLocked(cluster)
	switch {
	case !p.capable || !p.online:
		delete(d.vigils, cluster)
		d.mu.Unlock()
		return
	case d.provenLocked(cluster, p, v, held):
		if v.last.Equal(last) {
			delete(d.vigils, cluster)
		} else {
			// What was published meanwhile may not be in held.
			d.checks.AddAfter(cluster, struct{}{}, quietAfter)
		}
		d.mu.Unlock()
		return
	}
	v.pause = min(max(2*v.pause, quietAfter), d.options.CompareInterval)
	pause := v.pause
	d.mu.Unlock()
	d.helloCluster(ctx, cluster)
	d.checks.AddAfter(cluster, struct{}{}, pause)
}

// quietIn is the time until what was published may be looked at.
func (v *vigil) quietIn(now time.Time) time.Duration {
	if v.first.IsZero() || v.pause > 0 {
		return 0
	}
	return min(v.last.Add(quietAfter).Sub(now), v.first.Add(quietMax).Sub(now))
}

// provenLocked says whether a vigil is over: the wanted digest came, and a digest
// said since the last publish that all is there, or all was reported on.
func (d *Dispatcher) provenLocked(cluster string, p *peer, v *vigil, held []Held) bool {
	if !v.wanted.IsZero() && p.heardAt.Before(v.wanted) {
		return false
	}
	if v.last.IsZero() || p.syncedAt.After(v.last) {
		return true
	}
	for _, h := range unreported(held) {
		if _, excused := p.excuses[h.ID]; !excused && !h.Withheld && !d.givenUpLocked(Key{cluster, h.ID}, h.Generation) {
			return false
		}
	}
	return true
}
