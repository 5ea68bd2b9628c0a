// Package queue is a keyed work queue that is fair between groups.
//
// A key that is added while it waits is not added again: queues hold names, the
// newest state is looked up by whoever takes the name. Groups (on a hub:
// clusters) are served in turn, so that ten thousand keys of one group delay
// one key of another by one key. A key that is being worked on is not handed
// out a second time; if it is added meanwhile it comes again after Done.
//
// There is one timer per queue and no goroutine, so that a process can have
// thousands of queues.
package queue

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Options tune a Queue. The zero value works.
type Options struct {
	// MinBackoff and MaxBackoff bound what Retry waits: about MinBackoff at the
	// first failure, twice that at the next, and so on. Defaults: 500 ms and
	// one minute.
	MinBackoff, MaxBackoff time.Duration
}

// A Queue holds keys of type K in groups of type G. It is safe for concurrent
// use. Make one with New.
type Queue[G, K comparable] struct {
	minBackoff, maxBackoff time.Duration

	mu      sync.Mutex
	items   map[name[G, K]]*item[G, K]
	ready   map[G]*group[K]
	turn    []G // Groups with ready keys, the next one first.
	delayed delays[G, K]
	timer   *time.Timer
	due     time.Time // When timer fires; zero if it is not set.
	waiting []chan struct{}
	length  int
}

type name[G, K comparable] struct {
	group G
	key   K
}

type item[G, K comparable] struct {
	name     name[G, K]
	queued   bool      // In its group's list.
	working  bool      // Between Get and Done.
	again    bool      // Added while working.
	failures int       // Retries since the last Forget.
	at       time.Time // When it becomes ready; zero if not delayed.
	index    int       // In the heap of delays, valid if at is set.
}

// A group is a list of keys, the next one at head.
type group[K comparable] struct {
	keys []K
	head int
}

// take removes the next key. A group that never empties must not keep what it
// was through with: when that is more than half of the list, the rest moves to
// the front, which costs no more than the takes before it.
func (gr *group[K]) take() K {
	k := gr.keys[gr.head]
	gr.head++
	if 2*gr.head > len(gr.keys) {
		n := copy(gr.keys, gr.keys[gr.head:])
		clear(gr.keys[n:])
		gr.keys, gr.head = gr.keys[:n], 0
	}
	return k
}

// New returns an empty queue.
func New[G, K comparable](o Options) *Queue[G, K] {
	if o.MinBackoff <= 0 {
		o.MinBackoff = 500 * time.Millisecond
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = time.Minute
	}
	return &Queue[G, K]{
		minBackoff: o.MinBackoff,
		maxBackoff: max(o.MinBackoff, o.MaxBackoff),
		items:      map[name[G, K]]*item[G, K]{},
		ready:      map[G]*group[K]{},
	}
}

// Add makes the key ready now. A delay it was waiting for is over.
func (q *Queue[G, K]) Add(g G, k K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.item(g, k)
	q.undelay(it)
	q.push(it)
}

// AddAfter makes the key ready after d, or earlier if it already is or will be.
func (q *Queue[G, K]) AddAfter(g G, k K, d time.Duration) {
	if d <= 0 {
		q.Add(g, k)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.delay(q.item(g, k), time.Now().Add(d))
}

// Retry makes the key ready after a jittered delay that doubles with each
// Retry since the last Forget, and returns that delay.
func (q *Queue[G, K]) Retry(g G, k K) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.item(g, k)
	d := q.maxBackoff
	// The shift is bounded so that it cannot overflow.
	if n := it.failures; n < 30 && q.minBackoff<<n < q.maxBackoff {
		d = q.minBackoff << n
	}
	it.failures++
	d = d/2 + rand.N(d/2+1)
	q.delay(it, time.Now().Add(d))
	return d
}

// Failures is how often Retry was called for the key since the last Forget.
func (q *Queue[G, K]) Failures(g G, k K) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it, ok := q.items[name[G, K]{g, k}]; ok {
		return it.failures
	}
	return 0
}

// Forget ends the growth of the key's retry delay; it does not unqueue it.
func (q *Queue[G, K]) Forget(g G, k K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it, ok := q.items[name[G, K]{g, k}]; ok {
		it.failures = 0
		q.drop(it)
	}
}

// Get waits for a key and takes it. The caller calls Done when it has finished
// with the key. ok is false when ctx ended first.
func (q *Queue[G, K]) Get(ctx context.Context) (g G, k K, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if ctx.Err() != nil {
			if q.length > 0 {
				q.wake() // It was woken for nothing: the next one in line takes it.
			}
			return g, k, false
		}
		if it := q.pop(); it != nil {
			return it.name.group, it.name.key, true
		}
		wake := make(chan struct{})
		q.waiting = append(q.waiting, wake)
		q.mu.Unlock()
		select {
		case <-wake:
			q.mu.Lock()
		case <-ctx.Done():
			q.mu.Lock()
			q.leave(wake)
			return g, k, false
		}
	}
}

// Done ends the work on a key taken with Get.
func (q *Queue[G, K]) Done(g G, k K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it, ok := q.items[name[G, K]{g, k}]
	if !ok || !it.working {
		return
	}
	it.working = false
	if it.again {
		it.again = false
		q.push(it)
		return
	}
	q.drop(it)
}

// Len is the number of keys that are ready, delayed keys and those being worked
// on not counted.
func (q *Queue[G, K]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.length
}

func (q *Queue[G, K]) item(g G, k K) *item[G, K] {
	n := name[G, K]{g, k}
	it, ok := q.items[n]
	if !ok {
		it = &item[G, K]{name: n}
		q.items[n] = it
	}
	return it
}

// drop forgets an item that holds nothing worth remembering.
func (q *Queue[G, K]) drop(it *item[G, K]) {
	if !it.queued && !it.working && !it.again && it.failures == 0 && it.at.IsZero() {
		delete(q.items, it.name)
	}
}

func (q *Queue[G, K]) push(it *item[G, K]) {
	if it.working {
		it.again = true
		return
	}
	if it.queued {
		return
	}
	it.queued = true
	gr, ok := q.ready[it.name.group]
	if !ok {
		gr = &group[K]{}
		q.ready[it.name.group] = gr
		q.turn = append(q.turn, it.name.group)
	}
	gr.keys = append(gr.keys, it.name.key)
	q.length++
	q.wake()
}

// pop takes the next key of the group whose turn it is. The group goes to the
// end of the line if it has more.
func (q *Queue[G, K]) pop() *item[G, K] {
	if len(q.turn) == 0 {
		return nil
	}
	g := q.turn[0]
	q.turn = q.turn[1:]
	gr := q.ready[g]
	k := gr.take()
	if len(gr.keys) == 0 {
		delete(q.ready, g)
	} else {
		q.turn = append(q.turn, g)
	}
	q.length--
	it := q.items[name[G, K]{g, k}]
	it.queued, it.working = false, true
	return it
}

func (q *Queue[G, K]) wake() {
	if len(q.waiting) > 0 {
		close(q.waiting[0])
		q.waiting = q.waiting[1:]
	}
}

// leave takes a waiter out of line. If it was woken just now, the wake-up is
// passed on.
func (q *Queue[G, K]) leave(wake chan struct{}) {
	for i, w := range q.waiting {
		if w == wake {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return
		}
	}
	if q.length > 0 {
		q.wake()
	}
}

func (q *Queue[G, K]) delay(it *item[G, K], at time.Time) {
	switch {
	case it.queued || it.again:
		return
	case it.at.IsZero():
		it.at = at
		heap.Push(&q.delayed, it)
	case at.Before(it.at):
		it.at = at
		heap.Fix(&q.delayed, it.index)
	default:
		return
	}
	q.arm()
}

func (q *Queue[G, K]) undelay(it *item[G, K]) {
	if !it.at.IsZero() {
		heap.Remove(&q.delayed, it.index)
		it.at = time.Time{}
	}
}

// arm sets the timer to the first delay. It leaves a timer alone that fires
// earlier: that costs one wake-up, not one reset per change.
func (q *Queue[G, K]) arm() {
	if len(q.delayed) == 0 {
		return
	}
	first := q.delayed[0].at
	if !q.due.IsZero() && !first.Before(q.due) {
		return
	}
	q.due = first
	if q.timer == nil {
		q.timer = time.AfterFunc(time.Until(first), q.fire)
	} else {
		q.timer.Reset(time.Until(first))
	}
}

func (q *Queue[G, K]) fire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due = time.Time{}
	now := time.Now()
	for len(q.delayed) > 0 && !q.delayed[0].at.After(now) {
		it := q.delayed[0]
		q.undelay(it)
		q.push(it)
	}
	q.arm()
}

// delays is a heap of items by the time they become ready.
type delays[G, K comparable] []*item[G, K]

func (d delays[G, K]) Len() int           { return len(d) }
func (d delays[G, K]) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d delays[G, K]) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push implements heap.Interface.
func (d *delays[G, K]) Push(x any) {
	it, _ := x.(*item[G, K])
	it.index = len(*d)
	*d = append(*d, it)
}

// Pop implements heap.Interface.
func (d *delays[G, K]) Pop() any {
	old := *d
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return it
}
