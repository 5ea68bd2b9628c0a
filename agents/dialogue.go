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

	// A source that answers, and yet does not confirm, is there, and the link
	// loses what is said: it is spoken to this often, for so many digests, before
	// the wait begins to double. While something arrives, the digest waits anyway.
	briskRetry = firstRetry
	brisk      = 60

	// patience is how many digests in a row a source may leave without an answer
	// until it is asked as an OCM source is: it may have become one.
	patience = 3

	// restless bounds how long changes that never pause put a digest off, in
	// units of Options.Quiet.
	restless = 6

	// dear is how seldom a list is repeated to a source that answers no digest,
	// which is away as a rule and would find all of them when it returns, and how
	// seldom one is asked for everything because neither entries nor a list fit
	// the broker's packets; in units of Options.ResyncInterval.
	dear = 6

	// doubtful is how long the lead that the agent follows must have been silent,
	// while one below it said hello, until the agent follows the latter.
	doubtful = 10 * time.Minute
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
	answered bool      // One of them was answered.
	silent   int       // Digests sent since the source was last heard.
	spoke    time.Time // When something was last sent to the source.

	// listedAt is when a list last took the place of digests without an answer;
	// zero if none did since the source last answered one, on this connection.
	listedAt time.Time
	// fellBackAt is when a list last took the place of entries that could not be
	// sent, allAt when it was allowed to ask for everything instead; zero if none
	// did on this connection.
	fellBackAt, allAt time.Time

	// doubtAt is when a lead below the one that the agent follows said hello,
	// with no sign of the latter since; zero if none did. doubts is how many
	// digests were sent since.
	doubtAt time.Time
	doubts  int

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
type turn struct {
	digest, presence bool
	// list goes with a digest. all says that the source may be asked for
	// everything if the list is too large.
	list, all bool
}

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
		t.digest = true
		t.list = d.silent >= patience && atLeast(dear*d.resync, now, d.listedAt)
		t.all = t.list && d.listedAt.IsZero()
		if t.list {
			d.listedAt = now
		}
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
	d.listening = true
	d.tries, d.silent, d.answered = 0, 0, false
	d.listedAt, d.fellBackAt, d.allAt = time.Time{}, time.Time{}, time.Time{}
	d.trust()
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
	d.trust() // That the source is not heard says nothing of it.
	d.rouse()
}

// isCapable says whether the source knows digests.
func (d *dialogue) isCapable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.capable
}

// greeted says that the source announced itself: it is there, and wants a
// digest at some time within spread. That a list took the digests' place is not
// forgotten until it answers one: who says hello upon every list would be sent
// one every minute.
func (d *dialogue) greeted(now time.Time, capable bool, spread time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capable = capable
	d.tries, d.silent = 0, 0
	d.trust()
	d.promise(now, spread)
}

// outranked says that a lead below the one that the agent follows announced
// itself: it is sent a digest, which tells it so, and is no sign of the source.
func (d *dialogue) outranked(now time.Time, spread time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.promise(now, spread)
}

// promise has a digest sent at some time within spread.
func (d *dialogue) promise(now time.Time, spread time.Duration) {
	if at := now.Add(d.upTo(spread)); d.digestAt.IsZero() || at.Before(d.digestAt) {
		d.digestAt = at
	}
	d.rouse()
}

// answers says whether the source answered one of the last digests.
func (d *dialogue) answers() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.capable && d.silent < patience
}

// correct has a digest sent soon that says what this agent can do now.
func (d *dialogue) correct(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.capable && d.silent < patience {
		d.promise(now, 0)
	}
}

// doubt notes that a lead below the one that the agent follows announced itself,
// and says whether the latter is to be forgotten: one that leads would have
// answered digests, and one that was only claimed, by a mistake or by malice,
// would keep the agent from comparing for ever. One that is not known to know
// digests is sent none.
func (d *dialogue) doubt(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubtAt.IsZero() {
		d.doubtAt = now
	}
	return d.listening && (d.doubts >= patience || !d.capable) && now.Sub(d.doubtAt) >= doubtful
}

// assured says that there was a sign of the lead that the agent follows.
func (d *dialogue) assured() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trust()
}

func (d *dialogue) trust() { d.doubtAt, d.doubts = time.Time{}, 0 }

// speaking says that a digest of what is held now is about to be sent.
func (d *dialogue) speaking(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = time.Time{}
	wait := d.retry()
	d.tries++
	d.silent++
	if !d.doubtAt.IsZero() {
		d.doubts++
	}
	d.digestAt = now.Add(wait + d.upTo(wait/5))
	d.rouse()
}

// retry is the wait for an answer to the next digest.
func (d *dialogue) retry() time.Duration {
	// The shifts are bounded so that they cannot overflow.
	const most = 20
	wait := min(d.resync, firstRetry<<min(d.tries, most))
	if d.answered {
		wait = min(wait, briskRetry<<min(max(0, d.tries-brisk), most))
	}
	return wait
}

// unspoken takes back speaking for a digest that was not sent.
func (d *dialogue) unspoken() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries, d.silent, d.doubts = max(0, d.tries-1), max(0, d.silent-1), max(0, d.doubts-1)
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
		d.tries, d.answered = 0, false
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
	d.capable, d.silent, d.answered, d.listedAt = true, 0, true, time.Time{}
	d.trust()
}

// takeDiffering takes the buckets that the source asks for.
func (d *dialogue) takeDiffering() (buckets [digest.Buckets]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	buckets, d.differing = d.differing, buckets
	return buckets
}

// fallBack says whether to send a list in the place of entries that cannot be
// sent, and whether that may ask for everything if it is too large itself. As
// long as they cannot be sent, nothing else repairs what differs.
func (d *dialogue) fallBack(now time.Time) (list, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !atLeast(d.resync, now, d.fellBackAt) {
		return false, false
	}
	d.fellBackAt = now
	if all = atLeast(dear*d.resync, now, d.allAt); all {
		d.allAt = now
	}
	return true, all
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

// atLeast says whether so much time passed since last, or last was never.
func atLeast(span time.Duration, now, last time.Time) bool {
	return last.IsZero() || now.Sub(last) >= span
}

// upTo draws a duration from 0 to d.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d + 1)
}
