package sources

import (
	"context"
	"errors"
	"slices"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// reportTries is how often a report is offered to the source before it is given
// up: over a minute with the queue's delays, which outlasts a restart of an API
// server. It is not left with the broker then: where acknowledgements are in
// order, it would fill the window and stop the reports of all clusters. Its
// cluster has it still and is asked for it.
const reportTries = 8

// A pendingReport is the newest report on one work with the deliveries it
// settles: its own, and those of the reports that it superseded. A report that
// came compressed waits so: it may stand for 64 times its size, and a thousand of
// them may wait for a source that is slow or not loaded.
type pendingReport struct {
	report     codec.Report // Without its payload if newest is compressed.
	newest     brokers.Delivery
	superseded []brokers.Delivery // Without their events.
	tries      int
	counted    bool // What decompressing newest took is counted.
}

// merge adds what came for the same work.
func (p *pendingReport) merge(o *pendingReport) {
	old := o.newest
	if o.report.Sequence > p.report.Sequence {
		old = p.newest
		p.report, p.newest, p.counted = o.report, o.newest, o.counted
	}
	old.Event = event.Event{}
	p.superseded = slices.Concat(p.superseded, o.superseded, []brokers.Delivery{old})
	p.tries = max(p.tries, o.tries)
}

func (p *pendingReport) settle(err error) {
	p.newest.Done(err)
	p.settleSuperseded(err)
}

func (p *pendingReport) settleSuperseded(err error) {
	for _, in := range p.superseded {
		in.Done(err)
	}
}

// accept queues a report. The number of waiting ones is bounded by the driver,
// which stops receiving at its limit of unsettled events.
func (d *Dispatcher) accept(r codec.Report, in brokers.Delivery) {
	k := Key{Cluster: r.Cluster, ID: r.ID}
	if d.hold(k, &pendingReport{report: r, newest: in}) {
		d.reports.Add(k.Cluster, k)
	}
}

// hold keeps p until a worker takes it, and says whether it is the only one for
// its key: a key that is queued already, perhaps after a failure, keeps its
// time.
func (d *Dispatcher) hold(k Key, p *pendingReport) (alone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if waiting, ok := d.pending[k]; ok {
		waiting.merge(p)
		return false
	}
	d.pending[k] = p
	return true
}

func (d *Dispatcher) takeReports(ctx context.Context) {
	for {
		cluster, k, ok := d.reports.Get(ctx)
		if !ok {
			return
		}
		d.takeReport(ctx, k)
		d.reports.Done(cluster, k)
	}
}

func (d *Dispatcher) takeReport(ctx context.Context, k Key) {
	d.mu.Lock()
	p, ok := d.pending[k]
	delete(d.pending, k)
	d.mu.Unlock()
	if !ok {
		return
	}
	report, result, err := d.open(p)
	if err != nil {
		d.reports.Forget(k.Cluster, k)
		d.reject(p.newest, typeReport, result, err)
		p.settleSuperseded(nil)
		d.metrics.superseded(len(p.superseded))
		if len(p.superseded) > 0 {
			d.askForUnsaved(k.Cluster) // One of those may have been a good one.
		}
		return
	}
	verdict, err := d.source.Report(ctx, report)
	switch {
	case err == nil:
		d.judged(k, p, verdict)
		d.reports.Forget(k.Cluster, k)
		p.settle(nil)
		if verdict == Unordered {
			d.compareAfter(k.Cluster, 0)
		}
		d.log.Debug("report taken", "cluster", k.Cluster, "id", k.ID, "generation", p.report.Generation, "verdict", verdict)
		return
	case ctx.Err() != nil:
		return // Stays with the broker.
	case !errors.Is(err, ErrNotLoaded):
		p.tries++
	}
	if p.tries >= reportTries {
		d.metrics.reported(verdictFailed, len(p.superseded))
		d.reports.Forget(k.Cluster, k)
		p.settle(nil)
		d.askForUnsaved(k.Cluster)
		d.once.warn("unsaved"+k.Cluster, "report cannot be saved; its cluster is asked for it again later",
			"cluster", k.Cluster, "id", k.ID, "err", err)
		return
	}
	d.hold(k, p)
	wait := d.reports.Retry(k.Cluster, k)
	d.log.Debug("report cannot be saved, trying again", "cluster", k.Cluster, "id", k.ID, "err", err, "after", wait)
}

// judged counts and notes what became of a report.
func (d *Dispatcher) judged(k Key, p *pendingReport, verdict Verdict) {
	d.metrics.reported(verdict, len(p.superseded))
	switch verdict {
	case Accepted, Unordered, Unchanged:
		d.reported(k, p.report.Generation)
		d.resave(k)
	case Invalid:
		d.unsave(k, p.report.Hash)
		d.note(drop{k, resultInvalid, errInvalidStatus})
	case Stale, Foreign, Unknown, verdictFailed:
	}
}

var errInvalidStatus = errors.New("the reported status can never be saved")
