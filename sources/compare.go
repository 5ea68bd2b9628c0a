package sources

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
)

const (
	// compareWorkers is how many clusters are compared at a time.
	compareWorkers = 8

	// compareSpacing spreads a pass over all clusters: 200 per second.
	compareSpacing = 5 * time.Millisecond

	// maxHashes bounds one StatusResync: about 131 KB.
	maxHashes = 1000

	// clustersRetry is the wait before the list of clusters is asked for again
	// after an error.
	clustersRetry = 5 * time.Second

	// listTries is how often the works of a cluster are listed before its
	// question, though it is still owed its answer, is acknowledged.
	listTries = 8

	// unsavedPause is the wait before a cluster is asked for a report that could
	// not be saved. It doubles each time, up to Options.CompareInterval.
	unsavedPause = time.Minute
)

// owedToCluster is what a comparison with one cluster shall answer, and what
// was before.
type owedToCluster struct {
	question *codec.SpecResync
	delivery brokers.Delivery // Of question.
	due      bool             // Compare even without a question.
	last     time.Time        // The last comparison.
	answered time.Time        // The last one that answered a question.

	unsaved   int       // Comparisons in a row for reports that could not be saved.
	unsavedAt time.Time // When the last one was asked for.
}

// ask remembers that a cluster waits for an answer. A question replaces an
// older one that was not answered yet. One that has to wait, because the cluster
// was answered just now, is acknowledged at once: left open for so long, the
// questions of a few clusters could fill the broker's window for all.
func (d *Dispatcher) ask(q codec.SpecResync, in brokers.Delivery) {
	d.mu.Lock()
	o := d.owedLocked(q.Cluster)
	settled := o.delivery
	wait := d.options.AnswerPause - time.Since(o.answered)
	o.question, o.delivery = &q, in
	if wait > 0 {
		o.delivery = brokers.Delivery{}
	}
	d.mu.Unlock()
	settled.Done(nil)
	if wait > 0 {
		in.Done(nil)
	}
	d.clusters.AddAfter(q.Cluster, struct{}{}, wait)
}

// compareAfter has a cluster compared after at least delay and ComparePause: by
// its digest, if it knows digests.
func (d *Dispatcher) compareAfter(cluster string, delay time.Duration) {
	d.mu.Lock()
	if p := d.peers[cluster]; p != nil && p.capable {
		if p.online {
			d.expectLocked(cluster, delay)
		}
		d.mu.Unlock()
		return
	}
	o := d.owedLocked(cluster)
	o.due = true
	delay = max(delay, d.options.ComparePause-time.Since(o.last))
	d.mu.Unlock()
	d.clusters.AddAfter(cluster, struct{}{}, delay)
}

// askForUnsaved has a cluster asked again for a report that could not be saved,
// later each time.
func (d *Dispatcher) askForUnsaved(cluster string) {
	d.mu.Lock()
	o := d.owedLocked(cluster)
	o.unsavedAt = time.Now()
	if o.due {
		d.mu.Unlock()
		return // Soon, or with the others.
	}
	wait := d.options.CompareInterval
	if n := o.unsaved; n < 10 {
		wait = min(wait, unsavedPause<<n)
	}
	o.unsaved++
	d.mu.Unlock()
	d.compareAfter(cluster, wait)
}

func (d *Dispatcher) owedLocked(cluster string) *owedToCluster {
	o, ok := d.owed[cluster]
	if !ok {
		o = &owedToCluster{}
		d.owed[cluster] = o
	}
	return o
}

// scheduleComparisons has all clusters compared when a session was established,
// and from time to time. Those that know digests are asked for them with one
// event for all.
func (d *Dispatcher) scheduleComparisons(ctx context.Context) {
	timer := time.NewTimer(d.interval())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.ready:
			d.helloAll(ctx)
		case <-timer.C:
		}
		next := d.interval()
		if err := d.compareAll(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("clusters of the source cannot be listed, trying again", "err", err, "after", clustersRetry)
			next = clustersRetry
		}
		timer.Reset(next)
	}
}

// interval is CompareInterval, give or take a fifth.
func (d *Dispatcher) interval() time.Duration {
	n := d.options.CompareInterval
	return n - n/5 + rand.N(2*n/5+1)
}

func (d *Dispatcher) compareAll(ctx context.Context) error {
	clusters, err := d.source.Clusters(ctx)
	if err != nil {
		return fmt.Errorf("list clusters: %w", err)
	}
	d.dropIdle()
	for i, cluster := range d.toCompare(clusters) {
		d.compareAfter(cluster, time.Duration(i)*compareSpacing)
	}
	return nil
}

// toCompare returns the clusters that a pass over all has compared: those that
// do not know digests, and those that are there and sent none for long. The
// clusters are those that have works; they become known, and others that do not
// know digests are forgotten.
func (d *Dispatcher) toCompare(clusters []string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fence.listed = true
	works := make(map[string]struct{}, len(clusters))
	for _, cluster := range clusters {
		works[cluster] = struct{}{}
		d.peerLocked(cluster)
	}
	var out []string
	for cluster, p := range d.peers {
		_, has := works[cluster]
		switch {
		case !p.capable && has:
			out = append(out, cluster)
		case !p.capable:
			delete(d.peers, cluster)
		case p.capable && p.online && time.Since(later(p.heardAt, d.sessionAt)) >= d.options.CompareInterval:
			out = append(out, cluster)
		case p.capable && !p.online && !has:
			d.saveLocked(cluster) // The source may not know it any more.
		}
	}
	return out
}

// dropIdle forgets clusters that are owed nothing, may be compared at once and
// had no trouble lately.
func (d *Dispatcher) dropIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for cluster, o := range d.owed {
		if o.question == nil && !o.due && time.Since(o.last) >= d.options.ComparePause &&
			time.Since(o.answered) >= d.options.AnswerPause && time.Since(o.unsavedAt) >= 2*d.options.CompareInterval {
			delete(d.owed, cluster)
		}
	}
}

func (d *Dispatcher) compareClusters(ctx context.Context) {
	for d.gate.wait(ctx) {
		cluster, none, ok := d.clusters.Get(ctx)
		if !ok {
			return
		}
		d.compareCluster(ctx, cluster)
		d.clusters.Done(cluster, none)
	}
}

// compareCluster queues what one cluster seems to lack, and asks it for the
// statuses that the source seems to lack.
func (d *Dispatcher) compareCluster(ctx context.Context, cluster string) {
	held, err := d.source.Held(ctx, cluster)
	if err != nil {
		if ctx.Err() == nil {
			wait := d.clusters.Retry(cluster, struct{}{})
			d.log.Debug("works of a cluster cannot be listed, trying again", "cluster", cluster, "err", err, "after", wait)
			if !errors.Is(err, ErrNotLoaded) && d.clusters.Failures(cluster, struct{}{}) >= listTries {
				d.settleQuestion(cluster)
			}
		}
		return
	}
	d.clusters.Forget(cluster, struct{}{})
	d.settleFlights(cluster, held)

	d.mu.Lock()
	o, ok := d.owed[cluster]
	if !ok {
		d.mu.Unlock()
		return
	}
	question, delivery := o.question, o.delivery
	o.question, o.delivery, o.due, o.last = nil, brokers.Delivery{}, false, time.Now()
	if question != nil {
		o.answered = o.last
	}
	p := d.peers[cluster]
	capable := p != nil && p.capable
	d.mu.Unlock()

	if question == nil && capable {
		return // It has said so since this comparison was due.
	}
	if question != nil {
		lacking, unknown := lacks(held, question.Versions)
		if unknown > 0 {
			d.metrics.unknownWorks.Add(float64(unknown))
			d.once.warn("unknown"+cluster, "cluster holds works that this source does not know; they stay there untouched",
				"cluster", cluster, "works", unknown)
		}
		d.answer(cluster, lacking, delivery)
		if slices.Contains(question.Capabilities, codec.CapDigest) {
			// From now on it need not list what it has.
			d.helloCluster(ctx, cluster)
		}
	} else {
		for _, k := range d.sendable(cluster, unreported(held)) {
			d.works.Add(cluster, k)
		}
	}
	if err := d.askForStatus(ctx, cluster, held); err != nil && ctx.Err() == nil {
		d.log.Debug("cluster cannot be asked for statuses, trying again", "cluster", cluster, "err", err)
		d.compareAfter(cluster, d.options.ComparePause)
	}
}

// settleQuestion acknowledges a question that cannot be answered for long. It
// is still owed its answer.
func (d *Dispatcher) settleQuestion(cluster string) {
	d.mu.Lock()
	o := d.owedLocked(cluster)
	delivery := o.delivery
	o.delivery = brokers.Delivery{}
	d.mu.Unlock()
	delivery.Done(nil)
}

// lacks compares what the source holds for a cluster with what its agent says
// it has. A deletion is always lacking: an agent that still lists the work has
// not heard of it, and one that does not has yet to confirm. So is a work
// without versions. What is not listed counts as version 0. unknown counts
// listed works that the source does not hold: without a tombstone they may be
// another source's, so nothing is said of them.
func lacks(held []Held, listed []codec.Version) (lacking []Held, unknown int) {
	has := make(map[string]int64, len(listed))
	for _, v := range listed {
		has[v.ID] = v.Generation
	}
	for _, h := range held {
		if h.Deleting || h.Generation == 0 || h.Generation > has[h.ID] {
			lacking = append(lacking, h)
		}
		delete(has, h.ID)
	}
	return lacking, len(has)
}

// unreported selects the works of which the newest generation, or the deletion,
// was not reported on: the cluster may never have got them.
func unreported(held []Held) []Held {
	var out []Held
	for _, h := range held {
		if h.Deleting || h.Reported != h.Generation {
			out = append(out, h)
		}
	}
	return out
}

// sendable returns the keys of works, except for those known not to be
// sendable.
func (d *Dispatcher) sendable(cluster string, works []Held) []Key {
	keys := make([]Key, 0, len(works))
	for _, h := range works {
		if k := (Key{Cluster: cluster, ID: h.ID}); !d.givenUp(k, h.Generation) {
			keys = append(keys, k)
		}
	}
	return keys
}

// askForStatus sends the hashes of the statuses that the source holds, in as
// many questions as the broker's size limit needs. A source without works asks
// nothing: without hashes the question would mean every status there is.
func (d *Dispatcher) askForStatus(ctx context.Context, cluster string, held []Held) error {
	parts := slices.Collect(slices.Chunk(held, maxHashes))
	for sent := 0; len(parts) > 0; {
		works := parts[0]
		// Each part has a key of its own, so that a broker that keeps the last
		// event per key keeps all of them.
		err := d.askForStatuses(ctx, cluster, "statusresync-"+strconv.Itoa(sent), works)
		switch {
		case err == nil:
			parts, sent = parts[1:], sent+1
		case errors.Is(err, brokers.ErrTooLarge) && len(works) > 1:
			half := len(works) / 2
			parts = append([][]Held{works[:half], works[half:]}, parts[1:]...)
		case errors.Is(err, brokers.ErrUnavailable):
			return err
		default:
			// The next comparison asks again.
			d.once.warn("statusresync"+cluster, "cluster cannot be asked for statuses", "cluster", cluster, "err", err)
			return nil
		}
	}
	return nil
}

// askForStatuses sends one question.
func (d *Dispatcher) askForStatuses(ctx context.Context, cluster, key string, works []Held) error {
	q := codec.StatusResync{Source: d.id, Cluster: cluster, Hashes: make([]codec.StatusHash, 0, len(works))}
	for _, h := range works {
		q.Hashes = append(q.Hashes, codec.StatusHash{ID: h.ID, Hash: h.StatusHash})
	}
	e, err := q.Encode(codec.ResyncRequest)
	if err != nil {
		return fmt.Errorf("encode the question for statuses: %w", err)
	}
	to := brokers.Topic{Lane: brokers.ToCluster, Source: d.id, Cluster: cluster, Key: key}
	return d.publish(ctx, to, typeStatusResync, e)
}
