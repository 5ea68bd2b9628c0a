package agents

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/fleetcast-io/fleetcast/codec"
)

// runWorks takes works from the queue and brings them about.
func (a *Agent) runWorks(ctx context.Context) {
	for {
		source, id, ok := a.work.Get(ctx)
		if !ok {
			return
		}
		a.runWork(ctx, Key{source, id})
		a.work.Done(source, id)
	}
}

// runWork gives one work its turn.
func (a *Agent) runWork(ctx context.Context, k Key) {
	full := a.demanded(k)
	r := a.state.get(k)
	if r == nil || r.Gone() {
		a.work.Forget(k.Source, k.ID)
		return
	}
	report, err := a.bringAbout(ctx, r, full)
	if ctx.Err() != nil {
		// The applier was interrupted: what it says is of no use. The store
		// still says what is to be done.
		return
	}
	if err != nil {
		a.demand(k)
		wait := a.work.Retry(k.Source, k.ID)
		if a.work.Failures(k.Source, k.ID) == 1 {
			a.log.Info("work is not where it should be, trying again",
				"source", k.Source, "work", k.ID, "name", a.state.name(k), "generation", r.Bundle.Generation, "next_try", wait, "err", err, "trace", r.Bundle.TraceValue())
		} else {
			a.log.Debug("work is still not where it should be", "source", k.Source, "work", k.ID, "name", a.state.name(k), "next_try", wait, "err", err, "trace", r.Bundle.TraceValue())
		}
	}
	if report.ID != "" {
		a.keep(k, r, report, outcome{settled: err == nil, looked: !full && r.Report.ID != "" && !r.Bundle.Deleting()})
	} else if err == nil {
		a.work.Forget(k.Source, k.ID)
	}
}

// bringAbout calls the applier. A panic there costs this work its turn, and no
// other work anything.
func (a *Agent) bringAbout(ctx context.Context, r *Record, full bool) (report codec.Report, err error) {
	what := "observe"
	defer func() {
		if p := recover(); p != nil {
			report, err = codec.Report{}, fmt.Errorf("%s work %s: panic: %v", what, r.Bundle.ID, p)
			a.log.Error("applier panicked", "source", r.Bundle.Source, "work", r.Bundle.ID, "name", nameOf(r.Bundle), "panic", p, "stack", string(debug.Stack()), "trace", r.Bundle.TraceValue())
		}
		worksTotal.WithLabelValues(what, result(err)).Inc()
	}()
	switch {
	case r.Bundle.Deleting():
		what = "delete"
		return a.applier.Delete(ctx, r.Bundle, r.Report)
	case full || r.Report.ID == "":
		what = "apply"
		return a.applier.Apply(ctx, r.Bundle, r.Report)
	}
	return a.applier.Observe(ctx, r.Bundle, r.Report)
}

// An outcome is how a work's turn ended.
type outcome struct {
	settled bool // The applier is done with the work.
	looked  bool // It only looked: what it says of applying is from the record it was given.
}

// keep stores what the applier said of the record it was given, and has it
// sent if it is news.
func (a *Agent) keep(k Key, given *Record, report codec.Report, of outcome) {
	deleted := false
	if given.Bundle.Deleting() {
		var err error
		if deleted, err = report.Deleted(); err != nil {
			a.log.Error("applier's report cannot be read", "source", k.Source, "work", k.ID, "name", a.state.name(k), "err", err, "trace", given.Bundle.TraceValue())
			return
		}
	}
	news, resurrected, current, overtaken := false, false, false, false
	a.state.change(mutation{
		decide: func(d *draft) {
			news, resurrected, current, overtaken = false, false, false, false
			now := d.get(k)
			if now == nil || now.Gone() || !same(now.Bundle, given.Bundle) || now.Bundle.Deleting() != given.Bundle.Deleting() {
				return // It was about a version that is no longer the newest.
			}
			if of.looked && now.Report.Sequence != given.Report.Sequence {
				// The turn before it ended with a report that the store had not
				// taken when this one began, and which this one would undo.
				overtaken = true
				return
			}
			current = true
			if deleted {
				d.put(k, buried(now, a.report(report, d.issue(k.Source)), a.o.Now()))
				news, resurrected = now.Next == nil, now.Next != nil
				return
			}
			if now.Report.ID != "" && report.Hash == now.Report.Hash && report.Generation == now.Report.Generation {
				return
			}
			d.put(k, now.with(a.report(report, d.issue(k.Source))))
			news = true
		},
		done: func(err error) {
			switch {
			case err != nil:
				// Nothing of it was kept: the work's next turn says it again.
				a.demand(k)
				wait := a.work.Retry(k.Source, k.ID)
				a.tell("store", "agent's store refuses a report, trying again", "source", k.Source, "work", k.ID, "name", a.state.name(k), "next_try", wait, "err", err, "trace", given.Bundle.TraceValue())
			case resurrected:
				a.apply(k)
			case overtaken:
				a.work.Add(k.Source, k.ID)
			case news:
				a.queueReport(k)
			}
			if err == nil {
				a.untell("store")
				if of.settled {
					a.work.Forget(k.Source, k.ID)
				}
				if of.settled && current {
					a.done(k, given.Bundle.Generation)
				}
			}
		},
	})
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}
