package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"k8s.io/apimachinery/pkg/api/meta"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// A ledger knows which versions of works are under way, and how long those took
// that arrived.
type ledger struct {
	mu      sync.Mutex
	awaited map[sources.Key]awaited
	arrived int
	took    *hdrhistogram.Histogram // Microseconds.
	last    time.Time
	settled chan struct{} // Closed while nothing is awaited.
}

// awaited is a version of a work whose status the source does not hold yet.
type awaited struct {
	generation int64
	deletion   bool
	since      time.Time
}

func newLedger() *ledger {
	l := &ledger{awaited: map[sources.Key]awaited{}, took: newHistogram(), settled: make(chan struct{})}
	close(l.settled)
	return l
}

// newHistogram holds latencies up to an hour with three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Hour.Microseconds(), 3)
}

// expect notes that a version is under way. It is called before the source tells
// of the version.
func (l *ledger) expect(k sources.Key, generation int64, deletion bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.awaited) == 0 {
		l.settled = make(chan struct{})
	}
	l.awaited[k] = awaited{generation: generation, deletion: deletion, since: time.Now()}
}

// accepted is told of every report that the source took.
func (l *ledger) accepted(r codec.Report) {
	k := sources.Key{Cluster: r.Cluster, ID: r.ID}
	l.mu.Lock()
	a, ok := l.awaited[k]
	l.mu.Unlock()
	if !ok || r.Generation < a.generation || !a.done(r) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now, ok := l.awaited[k]; !ok || now != a {
		return
	}
	delete(l.awaited, k)
	l.arrived++
	l.last = time.Now()
	_ = l.took.RecordValue(min(max(1, l.last.Sub(a.since).Microseconds()), time.Hour.Microseconds()))
	if len(l.awaited) == 0 {
		close(l.settled)
	}
}

// done says whether the report ends what is awaited.
func (a awaited) done(r codec.Report) bool {
	if a.deletion {
		gone, err := r.Deleted()
		return err == nil && gone
	}
	status, err := r.Status()
	return err == nil && meta.IsStatusConditionTrue(status.Conditions, workv1.WorkApplied)
}

// counts are how many versions arrived since the last reset, and how many are
// under way.
func (l *ledger) counts() (arrived, underWay int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.arrived, len(l.awaited)
}

// reset begins to count anew, and returns what was counted.
func (l *ledger) reset() (arrived int, took *hdrhistogram.Histogram, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	arrived, took, last = l.arrived, l.took, l.last
	l.arrived, l.took = 0, newHistogram()
	return arrived, took, last
}

// await waits until nothing is under way.
func (l *ledger) await(ctx context.Context) error {
	l.mu.Lock()
	settled := l.settled
	l.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		_, n := l.counts()
		return fmt.Errorf("wait for the status of works: %w with %d works without", ctx.Err(), n)
	}
}

// A ledgered source tells the ledger of the reports that it takes.
type ledgered struct {
	*memory.Source

	ledger *ledger
}

// Report implements sources.Source.
func (l ledgered) Report(ctx context.Context, r codec.Report) (sources.Verdict, error) {
	v, err := l.Source.Report(ctx, r)
	if err == nil && (v == sources.Accepted || v == sources.Unchanged || v == sources.Unordered) {
		l.ledger.accepted(r)
	}
	return v, err
}
