package agents

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

const (
	// firstRetry is the wait for an answer to the first digest. It doubles with
	// each, up to Options.ResyncInterval.
	firstRetry = 5 * time.Second

	// patience is how many digests in a row a source may leave without an answer
	// until it is asked as an OCM source is: it may have become one.
	patience = 3

	// restless bounds how long changes that never pause put a digest off, in
	// units of Options.Quiet.
	restless = 6
)

// A dialogue is where the agent stands with one source that knows digests: what
// was agreed on, and when the agent speaks next. It decides, and leaves the
// sending to others. Its methods may be called concurrently; now is always the
// time of the call.
type dialogue struct {
	source              string
	quiet, resync, beat time.Duration

	// upTo draws a duration from 0 to what it is given, so that not all agents
	// speak at the same time.
	upTo func(time.Duration) time.Duration

	// wake holds a token when due may have something new to say.
	wake chan struct{}

	mu        sync.Mutex
	capable   bool // The source is known to know digests.
	listening bool // The subscription is established.

	digestAt time.Time // When the next digest is due; zero if none is.
	changed  time.Time // The first change since the last digest; zero if there was none.
	tries    int       // Digests sent since the last match.
	silent   int       // Digests sent since the source was last heard.
	listed   bool      // A list took the digests' place on this connection.
	spoke    time.Time // When something was last sent to the source.

	// match is what the last match was about; nil if there was none.
	match *matched
	// differing are the buckets that the source asks for.
	differing [digest.Buckets]bool
	unclaimed int // As the source last said.
}

// matched are the roots that a source confirmed.
type matched struct{ spec, status digest.Short }

func newDialogue(source string, capable bool, o Options) *dialogue {
	return &dialogue{
		source: source, quiet: o.Quiet, resync: o.ResyncInterval, beat: o.HeartbeatInterval, upTo: upTo,
		wake: make(chan struct{}, 1), capable: capable,
	}
}

// A turn is what is to be sent now.
type turn struct{ digest, list, presence bool }

// due returns what is to be sent now, once, and how long until there may be
// more; 0 if only a wake can change that.
func (d *dialogue) due(now time.Time) (turn, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.capable || !d.listening {
		return turn{}, 0
	}
	var t turn
	if !d.digestAt.IsZero() && !now.Before(d.digestAt) {
		t.digest, t.list = true, d.silent >= patience && !d.listed
		d.listed = d.listed || t.list
		d.digestAt = time.Time{} // speaking says when the next one is due.
		d.spoke = now
	}
	if beatAt := d.spoke.Add(d.beat); !now.Before(beatAt) {
		t.presence = true
		d.spoke = now
	}
	wait := d.spoke.Add(d.beat).Sub(now)
	if !d.digestAt.IsZero() {
		wait = min(wait, d.digestAt.Sub(now))
	}
	return t, max(wait, time.Millisecond)
}

// established begins with what both sides know: a digest.
func (d *dialogue) established(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listening, d.listed = true, false
	d.tries, d.silent = 0, 0
	d.digestAt, d.spoke = time.Time{}, now
	if d.capable {
		d.digestAt = now
	}
	d.rouse()
}

// down says that the subscription is lost. Nobody hears a digest until it is
// established again.
func (d *dialogue) down() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listening = false
	d.rouse()
}

// isCapable says whether the source knows digests.
func (d *dialogue) isCapable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.capable
}

// greeted says that the source announced itself: it is there, and wants a
// digest at some time within spread.
func (d *dialogue) greeted(now time.Time, capable bool, spread time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capable = capable
	d.tries, d.silent = 0, 0
	if at := now.Add(d.upTo(spread)); d.digestAt.IsZero() || at.Before(d.digestAt) {
		d.digestAt = at
	}
	d.rouse()
}

// speaking says that a digest of what is held now is about to be sent.
func (d *dialogue) speaking(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = time.Time{}
	wait := d.resync
	// The shift is bounded so that it cannot overflow.
	if d.tries < 20 {
		wait = min(wait, firstRetry<<d.tries)
	}
	d.tries++
	d.silent++
	d.digestAt = now.Add(wait + d.upTo(wait/5))
	d.rouse()
}

// unspoken takes back speaking for a digest that was not sent.
func (d *dialogue) unspoken() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries, d.silent = max(0, d.tries-1), max(0, d.silent-1)
}

// said notes that the broker took something for the source.
func (d *dialogue) said(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spoke = now
}

// change says that what is held, or said of it, is not what it was. The digest
// of that waits until the changes pause. A source that does not answer is not
// spoken to any more often for it.
func (d *dialogue) change(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.capable {
		return
	}
	if d.changed.IsZero() {
		d.changed = now
	}
	at := now.Add(d.quiet)
	if latest := d.changed.Add(restless * d.quiet); latest.Before(at) {
		at = latest
	}
	if d.silent >= patience && at.Before(d.digestAt) {
		return
	}
	d.digestAt = at
	d.rouse()
}

// matches says that the source confirmed these roots, and whether they are
// those of what is held now (present).
func (d *dialogue) matches(now time.Time, of matched, present bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard(now)
	d.match = &of
	if present {
		d.tries = 0
		d.digestAt = now.Add(d.resync + d.upTo(d.resync))
	}
	d.rouse()
}

// differs says that the source asks for these buckets. Without any, both sides
// have come to agree since; the next digest confirms it.
func (d *dialogue) differs(now time.Time, buckets []uint8) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard(now)
	d.match = nil
	for _, b := range buckets {
		d.differing[b] = true
	}
	d.rouse()
}

// heard says that the source answered a digest. What changed while it did not is
// told soon.
func (d *dialogue) heard(now time.Time) {
	at := now.Add(d.quiet)
	if d.silent >= patience && !d.changed.IsZero() && at.Before(d.digestAt) {
		d.digestAt = at
	}
	d.capable, d.silent = true, 0
}

// takeDiffering takes the buckets that the source asks for.
func (d *dialogue) takeDiffering() (buckets [digest.Buckets]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	buckets, d.differing = d.differing, buckets
	return buckets
}

// fallBack says whether to send a list in the place of entries that cannot be
// sent: once per connection.
func (d *dialogue) fallBack() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.listed
	d.listed = true
	return first
}

// confirmed is what the source last confirmed, nil if that is nothing.
func (d *dialogue) confirmed() *matched {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.match
}

// disown notes how many works the source does not know, and says whether that
// is news.
func (d *dialogue) disown(n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := n != d.unclaimed
	d.unclaimed = n
	return news
}

// disowned is how many works the source does not know.
func (d *dialogue) disowned() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unclaimed
}

func (d *dialogue) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// upTo draws a duration from 0 to d.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d + 1)
}
