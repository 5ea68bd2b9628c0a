package sources

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
)

const (
	// beginRetry and beginRetryMax bound the wait before a lead that could not
	// begin is tried again.
	beginRetry    = time.Second
	beginRetryMax = 30 * time.Second

	// epochSuffix is how many random characters each lead adds to the epoch of
	// its source, after a dot: copies of one state lead differently.
	epochSuffix = 8

	// disputeLeast and disputeMost bound the pause between two questions to all
	// clusters whom they follow, and disputeMost the one between two leads.
	disputeLeast = time.Minute
	disputeMost  = time.Hour

	// disputeRounds is how often all clusters are asked before those that are
	// offline do not count any more, and how often more than half of them have to
	// confirm this lead before another one is begun above that of the others.
	disputeRounds = 3

	// maxLeap is how far above its own a term may be that this hub goes by.
	// Terms count leads; whoever claims more would only use them up.
	maxLeap = 1 << 20
)

// A lead is one start of a source, as hellos and digests name it.
type lead struct {
	term  int64 // 0 without a Lifetime: nothing is fenced then.
	epoch string
}

// above says whether l is newer than o.
func (l lead) above(o lead) bool { return l.term > o.term || l.term == o.term && l.epoch > o.epoch }

// rivals says whether a cluster that names l follows another hub than the one
// of o.
func (l lead) rivals(o lead) bool { return l.above(o) && l.term <= o.term+maxLeap }

// A fence is what this dispatcher knows of its leads and of others'.
type fence struct {
	lead   lead
	led    map[int64]string // The epochs of all leads of this process, by term.
	listed bool             // The clusters that have works are known.

	weighedAt time.Time
	since     time.Time // When clusters began to follow another lead; zero if none does.
	confirmed int       // How often most of them confirmed this one since then.
	rounds    int       // How often they were asked since then.
	asking    pace      // To ask all clusters.
	outbids   pace      // To begin another lead.
	outbid    bool      // Another lead shall begin.
	fenced    error     // Why this hub does not lead any more.
}

// A pace spaces out what others could have repeated at will.
type pace struct {
	at    time.Time // The last time; zero if there was none.
	pause time.Duration
}

func (p pace) due(now time.Time) bool { return p.at.IsZero() || now.Sub(p.at) >= p.pause }

// take notes one more time. The pause doubles from least to most, and begins
// anew after a rest of twice most.
func (p *pace) take(now time.Time, least, most time.Duration) {
	if p.at.IsZero() || now.Sub(p.at) >= 2*most {
		p.pause = least
	} else {
		p.pause = min(max(2*p.pause, least), most)
	}
	p.at = now
}

func (d *Dispatcher) leadership() (epoch string, term int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fence.lead.epoch, d.fence.lead.term
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
	if len(epoch) > MaxEpoch {
		return fmt.Errorf("begin to lead source %s: an epoch of %d bytes, at most %d are allowed", d.id, len(epoch), MaxEpoch)
	}
	epoch += "." + rand.Text()[:epochSuffix]
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.fence
	f.lead = lead{term: term, epoch: epoch}
	f.led[term] = epoch
	f.since, f.rounds, f.confirmed, f.outbid = time.Time{}, 0, 0, false
	d.log.Info("leading", "epoch", epoch, "term", term)
	return nil
}

// named takes the newest lead that a cluster knows.
func (d *Dispatcher) named(cluster string, l lead) {
	d.mu.Lock()
	f := &d.fence
	p := d.peerLocked(cluster)
	p.names = l
	if epoch, ours := f.led[l.term]; ours && (l.epoch == epoch || l.epoch == "") {
		p.followed = true
	}
	if f.lead.term > 0 && l.term == f.lead.term && f.lead.above(l) {
		// It did not hear this hub's hello, and answers tell it no more than the
		// term: it may follow another hub that leads in the same one.
		d.expectLocked(cluster, d.options.ComparePause)
		d.vigilLocked(cluster).wanted = p.heardAt.Add(1) // Another one than this, whatever the clock's grain.
	}
	weigh := f.lead.term > 0 && f.fenced == nil && l.rivals(f.lead)
	if weigh {
		// All clusters of a fleet may say so at once, and counting takes longer
		// the more there are.
		pause := time.Duration(len(d.peers)/1000) * 10 * time.Millisecond
		weigh = time.Since(f.weighedAt) >= pause
	}
	d.mu.Unlock()
	if weigh {
		d.weigh(time.Now())
	}
}

// A census counts the clusters that know digests and sent one since this hub was
// there, short pauses aside.
type census struct {
	heard   int   // All, those that are offline only at first.
	follow  int   // Those that are there and follow another lead,
	left    int   // and of these the ones that had followed this hub.
	confirm int   // Those that named the present lead since they were asked.
	highest int64 // The highest term of the others.
}

func (d *Dispatcher) censusLocked() census {
	var c census
	f := &d.fence
	for _, p := range d.peers {
		if !p.capable || p.heardAt.IsZero() || p.heardAt.Before(d.presentAt) || !p.online && f.rounds >= disputeRounds {
			continue
		}
		c.heard++
		switch {
		case p.names == f.lead && p.heardAt.After(f.asking.at):
			c.confirm++
		case p.online && p.names.rivals(f.lead):
			c.follow++
			c.highest = max(c.highest, p.names.term)
			if p.followed {
				c.left++
			}
		}
	}
	return c
}

// weigh decides what follows from the leads that clusters name. One cluster's
// word fences no hub that has others, whatever it says and however often.
func (d *Dispatcher) weigh(now time.Time) {
	if d.weighs(now) {
		d.stop()
	}
}

// weighs is weigh, and says whether this hub is fenced by now.
func (d *Dispatcher) weighs(now time.Time) (fenced bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.fence
	if f.lead.term == 0 || f.fenced != nil {
		return false
	}
	f.weighedAt = now
	c := d.censusLocked()
	if c.follow == 0 {
		f.since, f.rounds, f.confirmed, f.outbid = time.Time{}, 0, 0, false
		return false
	}
	if f.since.IsZero() {
		f.since = now
	}
	settle := d.spreadLocked() + helloGrace
	quorum := 2
	if f.listed && len(d.peers) == 1 {
		quorum = 1 // It has no other cluster to ask.
	}
	most := 2*c.follow > c.heard
	switch {
	case most && c.left >= quorum:
		// They turned to another hub while this one ran. Those that were not
		// heard yet may still say otherwise.
		if now.Sub(d.presentAt) < settle {
			return false
		}
		f.fenced = fmt.Errorf("%w with term %d, this one has term %d: "+
			"stop one of the two hubs, then restart the one that shall lead", ErrFenced, c.highest, f.lead.term)
		d.down = f.fenced
		d.log.Error("this hub stopped dispatching: another one leads under the same source ID; "+
			"stop one of the two, then restart the one that shall lead",
			"term", f.lead.term, "above", c.highest, "clusters", c.follow)
		return true
	case c.left == 0, most && now.Sub(f.since) >= settle:
		// Either this source's memory is older than its clusters', as after it was
		// restored, or a hub that none of these clusters left this one for. If
		// there is one, it finds out now, or this hub once they followed it.
		d.outbidLocked(now, settle)
	case f.asking.due(now):
		if f.rounds > 0 && 2*c.confirm > c.heard {
			f.confirmed++
		}
		if f.confirmed >= disputeRounds {
			// No hub takes so long to take over. Those few do not listen to this one
			// until its term is above what they heard.
			d.outbidLocked(now, disputeMost)
		}
		f.rounds++
		f.asking.take(now, disputeLeast, disputeMost)
		d.answerRivalsSoon()
	}
	return false
}

// outbidLocked has another lead begun, with pauses.
func (d *Dispatcher) outbidLocked(now time.Time, least time.Duration) {
	f := &d.fence
	if f.outbid || !f.outbids.due(now) || !f.outbids.at.IsZero() && now.Sub(f.outbids.at) < least {
		return
	}
	f.outbid = true
	f.outbids.take(now, least, disputeMost)
	d.answerRivalsSoon()
}

func (d *Dispatcher) answerRivalsSoon() {
	select {
	case d.rivals <- struct{}{}:
	default:
	}
}

// answerRivals outbids the terms that clusters know, and says hello to all.
func (d *Dispatcher) answerRivals(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.rivals:
		}
		if !d.outbid(ctx) {
			return
		}
		if d.gate.wait(ctx) {
			d.helloAll(ctx)
		}
	}
}

// outbid begins a lead above all that clusters name, if one shall begin. It
// returns false when ctx ends first.
func (d *Dispatcher) outbid(ctx context.Context) bool {
	for wait := beginRetry; ; wait = min(2*wait, beginRetryMax) {
		d.mu.Lock()
		above, wanted := d.censusLocked().highest, d.fence.outbid
		d.mu.Unlock()
		if !wanted || above == 0 {
			return true
		}
		d.log.Info("clusters know of a higher term, beginning anew", "above", above)
		err := d.begin(ctx, above)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		d.once.warn("outbid", "source cannot begin a higher term, trying again", "err", err, "after", wait)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}
