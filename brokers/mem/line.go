package mem

import (
	"math/rand/v2"
	"time"
)

// A line holds the items of one topic in their order, never empty, or one
// duplicate.
type line struct {
	items     []*item
	duplicate bool

	// due and lot say which line comes first: the one whose first item is due
	// earlier, and by lot among those that are due at once.
	due time.Time
	lot uint64

	// blocked says that the first item is with the subscriber, and that the
	// others wait for what becomes of it. Such lines come last.
	blocked bool

	at int // In the heap.
}

// draw gives the line its rank for a new first item.
func (l *line) draw(rng *rand.Rand) {
	l.blocked = false
	l.due, l.lot = l.items[0].due, rng.Uint64()
}

// lineHeap implements heap.Interface; the first line comes first.
type lineHeap []*line

func (h lineHeap) Len() int { return len(h) }

func (h lineHeap) Less(i, j int) bool {
	if h[i].blocked != h[j].blocked {
		return h[j].blocked
	}
	if c := h[i].due.Compare(h[j].due); c != 0 {
		return c < 0
	}
	return h[i].lot < h[j].lot
}

func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *lineHeap) Push(x any) {
	l, _ := x.(*line) // Nothing else is pushed.
	l.at = len(*h)
	*h = append(*h, l)
}

func (h *lineHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
