package sources

import (
	"context"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
)

const (
	// beginRetry and beginRetryMax bound the wait before a lead that could not
	// begin is tried again.
	beginRetry    = time.Second
	beginRetryMax = 30 * time.Second

	// rivalInterval is how often all clusters are asked which term they know
	// while some know of a higher one.
	rivalInterval = time.Minute

	// maxLeap is how far above its own a term may be that this hub goes by.
	// Terms count leads; whoever claims more would only use them up.
	maxLeap = 1 << 20
)

// A lead is the term of this dispatcher, and what the clusters say of it.
type lead struct {
	epoch  string
	term   int64 // 0 without a Lifetime: nothing is fenced then.
	echoed bool  // Some cluster knows this term.

	above     int64 // The term to outbid; 0 if there is none.
	countedAt time.Time
	askedAt   time.Time
	fenced    error // Why this hub does not lead any more.
}

func (d *Dispatcher) leadership() (epoch string, term int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lead.epoch, d.lead.term
}

// prepare begins the lead and reads the roster. It tries until ctx ends, and
// says in Ready why it is not through yet: a hub that cannot write down that it
// leads must not.
func (d *Dispatcher) prepare(ctx context.Context) bool {
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return d.begin(ctx, 0) },
		d.loadAgents,
	} {
		for wait := beginRetry; ; wait = min(2*wait, beginRetryMax) {
			err := step(ctx)
			if err == nil {
				break
			}
			d.mu.Lock()
			d.down = err
			d.mu.Unlock()
			d.once.warn("begin", "source cannot begin to dispatch, trying again", "err", err, "after", wait)
			select {
			case <-ctx.Done():
				return false
			case <-time.After(wait):
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = errNoSession
	return true
}

// begin starts a lead of a higher term.
func (d *Dispatcher) begin(ctx context.Context, above int64) error {
	if d.source.lifetime == nil {
		return nil
	}
	epoch, term, err := d.source.Begin(ctx, above)
	if err != nil {
		return fmt.Errorf("begin to lead source %s: %w", d.id, err)
	}
	if term <= above || term > codec.MaxTerm {
		return fmt.Errorf("begin to lead source %s: term %d is not above %d and at most %d", d.id, term, above, int64(codec.MaxTerm))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lead = lead{epoch: epoch, term: term}
	d.log.Info("leading", "epoch", epoch, "term", term)
	return nil
}

// heard takes the newest lead that a cluster knows. Of two leads of one term, as
// of hubs that were installed at the same time, the one of the greater epoch is
// newer.
func (d *Dispatcher) heard(cluster, epoch string, term int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peerLocked(cluster)
	p.term, p.otherEpoch = term, epoch > d.lead.epoch
	switch {
	case d.lead.term == 0 || d.lead.fenced != nil || term > d.lead.term+maxLeap:
	case term == d.lead.term && epoch == d.lead.epoch:
		d.lead.echoed = true
	case !p.follows(d.lead): // It did not hear of this lead yet.
	case !d.lead.echoed:
		// This source's memory is older than its clusters': it was restored, or
		// is new. It takes the lead that is its own.
		d.lead.above = max(d.lead.above, term)
		select {
		case d.rivals <- struct{}{}:
		default:
		}
	default:
		// All clusters of a fleet may say so at once, and counting takes longer
		// the more there are.
		pause := time.Duration(len(d.peers)/1000) * 10 * time.Millisecond
		if now := time.Now(); now.Sub(d.lead.countedAt) >= pause {
			d.countRivalsLocked(now)
		}
	}
}

// follows says whether a cluster knows of a newer lead than l.
func (p *peer) follows(l lead) bool {
	return p.term > l.term && p.term <= l.term+maxLeap || p.term == l.term && p.otherEpoch
}

// countRivalsLocked fences this hub when more than half of the clusters that
// are there follow another one. One cluster's word is not enough, or it could
// stop the hub of all others.
func (d *Dispatcher) countRivalsLocked(now time.Time) {
	d.lead.countedAt = now
	there, lost, highest := 0, 0, int64(0)
	for _, p := range d.peers {
		if !p.capable || !p.online {
			continue
		}
		there++
		if p.follows(d.lead) {
			lost++
			highest = max(highest, p.term)
		}
	}
	switch {
	case 2*lost > there:
		d.lead.fenced = fmt.Errorf("%w with term %d, this one has term %d: "+
			"stop one of the two hubs, then restart the one that shall lead", ErrFenced, highest, d.lead.term)
		d.down = d.lead.fenced
		d.log.Error("this hub stopped dispatching: another one leads under the same source ID; "+
			"stop one of the two, then restart the one that shall lead",
			"term", d.lead.term, "above", highest, "clusters", lost)
		d.stop()
	case lost > 0 && now.Sub(d.lead.askedAt) >= rivalInterval:
		d.lead.askedAt = now
		select {
		case d.rivals <- struct{}{}:
		default:
		}
	}
}

// checkLeadLocked counts again from time to time: clusters come and go.
func (d *Dispatcher) checkLeadLocked(now time.Time) {
	if d.lead.term > 0 && d.lead.echoed && d.lead.fenced == nil && !d.lead.countedAt.IsZero() &&
		now.Sub(d.lead.countedAt) >= watchInterval {
		d.countRivalsLocked(now)
	}
}

// answerRivals outbids the terms that clusters know, and says hello again.
func (d *Dispatcher) answerRivals(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.rivals:
		}
		d.mu.Lock()
		above := d.lead.above
		outbid := above > 0 && above >= d.lead.term && !d.lead.echoed
		d.mu.Unlock()
		if outbid {
			d.log.Info("clusters know of a higher term, beginning anew", "above", above)
			if err := d.begin(ctx, above); err != nil {
				if ctx.Err() != nil {
					return
				}
				d.once.warn("outbid", "source cannot begin a higher term, trying again", "err", err, "after", beginRetry)
				time.AfterFunc(beginRetry, func() {
					select {
					case d.rivals <- struct{}{}:
					default:
					}
				})
				continue
			}
		}
		if d.gate.wait(ctx) {
			d.helloAll(ctx)
		}
	}
}
