package mem

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A sessionKey names what the broker keeps for one subscription.
type sessionKey struct {
	id, filters string
	// nth tells subscriptions of the same filters at the same time apart.
	nth int
}

// A queue is what the broker keeps for one subscription: the events that wait,
// a line per topic, and those that are not settled. All is guarded by the
// broker's lock.
type queue struct {
	b       *Broker
	filters []brokers.Filter
	rng     *rand.Rand
	wake    chan struct{} // Holds a value when there may be something to do.
	owner   *link         // Nil while the subscriber is away.
	routed  uint64        // The last record that was put in.

	byTopic map[brokers.Topic]*line
	lines   lineHeap
	// waiting holds, oldest first, the items that were not handed over since
	// the queue was attached; gone ones are removed when they come to the
	// front, or when they are too many. waits is how many are not gone.
	waiting []*item
	waits   int
	// unsettled holds the items that were handed over and wait for Done.
	unsettled map[*item]bool
	// handed is the newest record that was handed over or is known to be safe.
	handed uint64
}

// An item is a record in a queue.
type item struct {
	record
	// due: not before then. Zero is at once.
	due time.Time
	// handed: at least once since the queue was attached.
	handed bool
	// failed: settled with an error before. It stays in its line while it is
	// handed over again, so that what comes after it waits until it is settled.
	failed bool
	// gone: settled, replaced by a newer one, or dropped.
	gone bool
}

// queueLocked returns the queue of a subscription, and whether it was there.
func (b *Broker) queueLocked(id string, filters []brokers.Filter) (*queue, bool) {
	sorted := slices.Clone(filters)
	slices.SortFunc(sorted, func(a, b brokers.Filter) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Cluster, b.Cluster))
	})
	sorted = slices.Compact(sorted)
	key := sessionKey{id: id, filters: fmt.Sprintf("%q", sorted)}
	for ; b.sessions[key] != nil; key.nth++ {
		if q := b.sessions[key]; q.owner == nil {
			return q, true
		}
	}
	q := &queue{
		b: b, filters: sorted,
		rng:  b.chance(fmt.Sprintf("queue %s %d %s", key.id, key.nth, key.filters)),
		wake: make(chan struct{}, 1),
	}
	q.reset()
	b.sessions[key] = q
	for _, f := range sorted {
		b.index[f] = append(b.index[f], q)
	}
	if b.opts.Log {
		q.rewind(0)
	}
	return q, false
}

// route takes an event and puts it into the queues of its subscribers. The
// caller gives e away.
func (b *Broker) route(to brokers.Topic, e event.Event) {
	b.seq++
	if e.Validate() != nil {
		// A broker takes anything; a driver drops it on the other side.
		return
	}
	r := record{seq: b.seq, topic: to, event: e}
	if b.opts.Log && !broadcast(to) {
		b.last.put(r)
	}
	now := time.Now()
	for _, f := range filtersOf(to) {
		for _, q := range b.index[f] {
			if q.routed == r.seq {
				continue // Two filters of one subscription match.
			}
			q.routed = r.seq
			if q.owner == nil && broadcast(to) && !b.opts.DurableBroadcast {
				continue
			}
			if q.rng.Float64() < b.opts.Drop {
				continue
			}
			q.push(r, now)
			q.signal()
		}
	}
}

func broadcast(t brokers.Topic) bool {
	return t.Lane == brokers.ToAllClusters || t.Lane == brokers.ToAllSources
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) reset() {
	q.byTopic = make(map[brokers.Topic]*line)
	q.lines = nil
	q.waiting, q.waits = nil, 0
	q.unsettled = make(map[*item]bool)
}

// push puts a record at the end of its topic's line.
func (q *queue) push(r record, now time.Time) {
	it := &item{record: r}
	if q.b.opts.Delay > 0 {
		it.due = now.Add(upTo(q.rng, q.b.opts.Delay))
	}
	l := q.byTopic[r.topic]
	switch {
	case l == nil:
		l = &line{items: []*item{it}}
		q.byTopic[r.topic] = l
		l.draw(q.rng)
		heap.Push(&q.lines, l)
	case q.b.opts.Log && !broadcast(r.topic):
		for _, older := range l.items {
			q.drop(older)
		}
		l.items = []*item{it}
		l.draw(q.rng)
		heap.Fix(&q.lines, l.at)
	default:
		l.items = append(l.items, it)
	}
	q.waiting = append(q.waiting, it)
	q.waits++
	q.trim()
	for q.waits > q.b.opts.Queue && !q.b.opts.Log {
		oldest := q.waiting[0]
		q.drop(oldest)
		q.trim()
		if l := q.byTopic[oldest.topic]; l.items[0] == oldest {
			q.shift(l)
		}
	}
}

// drop forgets an item that need not or cannot be delivered any more. It stays
// in its line until it comes to the front.
func (q *queue) drop(it *item) {
	if !it.gone && !it.handed {
		q.waits--
	}
	it.gone = true
	delete(q.unsettled, it)
}

// trim restores that waiting begins with an item that waits, and that at least
// half of it does.
func (q *queue) trim() {
	done := func(it *item) bool { return it.gone || it.handed }
	for len(q.waiting) > 0 && done(q.waiting[0]) {
		q.waiting = q.waiting[1:]
	}
	if len(q.waiting) > 2*q.waits+16 {
		q.waiting = slices.DeleteFunc(q.waiting, done)
	}
}

// attach begins delivery over a connection.
func (q *queue) attach(l *link) {
	q.owner = l
	l.queues = append(l.queues, q)
}

// detach ends it: what is unsettled waits again, in its old place, and
// duplicates are forgotten.
func (q *queue) detach() {
	q.owner.queues = slices.DeleteFunc(q.owner.queues, func(other *queue) bool { return other == q })
	q.owner = nil
	q.refill(q.left())
}

// left returns the records that are not settled, in any order.
func (q *queue) left() []record {
	var records []record
	for it := range q.unsettled {
		records = append(records, it.record)
	}
	for _, l := range q.byTopic {
		for _, it := range l.items {
			if !it.gone && !q.unsettled[it] {
				records = append(records, it.record)
			}
		}
	}
	return slices.DeleteFunc(records, func(r record) bool {
		if broadcast(r.topic) {
			return !q.b.opts.DurableBroadcast
		}
		return q.b.opts.Log && q.b.last.superseded(r)
	})
}

// refill makes the queue hold exactly these records.
func (q *queue) refill(records []record) {
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.seq, b.seq) })
	q.reset()
	now := time.Now()
	for _, r := range records {
		q.push(r, now)
	}
}

// rewind makes the queue hold what the log has after a position, besides
// broadcasts, which are in no log.
func (q *queue) rewind(after uint64) {
	records := slices.DeleteFunc(q.left(), func(r record) bool { return !broadcast(r.topic) })
	q.refill(append(records, q.b.last.after(after, q.filters)...))
	q.handed = after
}

// next hands the next event over. If none is due, it says how long to wait for
// one, with 0 until the queue's wake, which may come earlier anyway.
func (q *queue) next(now time.Time) (d brokers.Delivery, ok bool, wait time.Duration) {
	if len(q.unsettled) >= q.b.opts.Window {
		return brokers.Delivery{}, false, 0
	}
	for len(q.lines) > 0 {
		l := q.lines[0]
		it := l.items[0]
		if it.gone && !l.duplicate {
			q.shift(l)
			continue
		}
		if l.blocked {
			break
		}
		if l.due.After(now) {
			return brokers.Delivery{}, false, l.due.Sub(now)
		}
		if it.failed && !l.duplicate {
			l.blocked = true
			heap.Fix(&q.lines, l.at)
		} else {
			q.shift(l)
		}
		if l.duplicate {
			return q.delivery(it), true, 0
		}
		if !it.handed {
			it.handed = true
			q.waits--
			q.trim()
		}
		q.unsettled[it] = true
		q.handed = max(q.handed, it.seq)
		if q.rng.Float64() < q.b.opts.Duplicate {
			q.repeat(it, now)
		}
		return q.delivery(it), true, 0
	}
	return brokers.Delivery{}, false, 0
}

// shift removes the first item of a line.
func (q *queue) shift(l *line) {
	if len(l.items) > 1 {
		l.items = l.items[1:]
		l.draw(q.rng)
		heap.Fix(&q.lines, l.at)
		return
	}
	heap.Remove(&q.lines, l.at)
	if !l.duplicate {
		delete(q.byTopic, l.items[0].topic)
	}
}

// repeat delivers an item once more, in a line of its own: duplicates come at
// any time, also after newer events.
func (q *queue) repeat(it *item, now time.Time) {
	heap.Push(&q.lines, &line{
		items: []*item{it}, duplicate: true,
		due: now.Add(upTo(q.rng, q.b.opts.Delay)), lot: q.rng.Uint64(),
	})
}

func (q *queue) delivery(it *item) brokers.Delivery {
	// Reordered events that are older than this one are not safe yet, so the
	// position is before them.
	position := ""
	if q.b.opts.Log && !broadcast(it.topic) {
		safe := q.handed
		if len(q.waiting) > 0 {
			safe = min(safe, q.waiting[0].seq-1)
		}
		position = q.b.position(safe)
	}
	owner := q.owner
	return brokers.NewDelivery(it.topic, it.event.Clone(), position, func(err error) {
		q.b.mu.Lock()
		defer q.b.mu.Unlock()
		if q.owner == owner {
			q.settle(it, err)
		}
	})
}

// settle is Done. Of an item and its duplicate, the first counts.
func (q *queue) settle(it *item, err error) {
	if !q.unsettled[it] {
		return
	}
	defer q.signal() // The window may have been full.
	l := q.byTopic[it.topic]
	atHand := l != nil && l.items[0] == it
	if err == nil || errors.Is(err, brokers.ErrReject) || q.b.opts.Log && q.b.last.superseded(it.record) {
		q.drop(it)
		if atHand {
			q.shift(l)
		}
		return
	}
	delete(q.unsettled, it)
	it.due, it.failed = time.Now().Add(q.b.opts.Redeliver), true
	// Newer events of the topic that were not handed over wait behind it, until
	// it is settled.
	switch {
	case l == nil:
		l = &line{items: []*item{it}}
		q.byTopic[it.topic] = l
		l.draw(q.rng)
		heap.Push(&q.lines, l)
		return
	case !atHand:
		// It is there already if an older one failed since it was handed over again.
		at, there := slices.BinarySearchFunc(l.items, it.seq, func(other *item, seq uint64) int { return cmp.Compare(other.seq, seq) })
		if !there {
			l.items = slices.Insert(l.items, at, it)
		}
	}
	if l.items[0] == it {
		l.draw(q.rng)
		heap.Fix(&q.lines, l.at)
	}
}
