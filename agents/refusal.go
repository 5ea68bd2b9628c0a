package agents

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// ReasonRejected is that of the condition Applied of a work whose newest
// version the agent cannot read. What it had before stays as it was.
const ReasonRejected = "Rejected"

// maxRefusals bounds the refused versions that are remembered per source. What
// comes on top is dropped without a report.
const maxRefusals = 1000

// A refusal is what the source is told of a version of a work that the agent
// cannot read. It is not kept on disk: the source, which is told by the next
// comparison that the agent lacks the version, sends it again.
type refusal struct {
	generation int64
	report     codec.Report
	unsent     bool
	// moot says that the source does not believe it: it holds the status that
	// the agent told before.
	moot bool
}

// refuse drops an event that cannot be decoded, and tells its source if the
// event says which version of which work it is. The broker vouches for the
// source, and that it is for this cluster; the event must not say otherwise.
func (a *Agent) refuse(d brokers.Delivery, at *step, why error) {
	id, generation, ok := codec.Identify(d.Event)
	if !ok || d.From.Lane != brokers.ToCluster || d.Event.Get(event.Source) != d.From.Source {
		a.drop(d, at, reasonOf(why), why)
		return
	}
	k := Key{d.From.Source, id}
	said := false
	a.state.change(mutation{
		decide: func(dr *draft) {
			said = false
			held := dr.get(k)
			if !refusable(held, generation) {
				return
			}
			before := dr.refusal(k)
			if before != nil && before.generation >= generation || before == nil && len(dr.refused(k.Source)) >= maxRefusals {
				return
			}
			report, err := a.rejection(k, generation, held, why)
			if err != nil {
				return
			}
			dr.refuse(k, &refusal{generation: generation, report: a.report(report, dr.issue(k.Source)), unsent: true})
			said = true
		},
		done: func(err error) {
			a.drop(d, at, reasonOf(why), why)
			if err == nil && said {
				a.queueReport(k)
			}
		},
	})
}

// refusable says whether the source is to be told of a version that cannot be
// read: not if the agent holds that or a newer one, of which it was a bad copy.
func refusable(held *Record, generation int64) bool {
	if held == nil {
		return true
	}
	newest := held.Bundle.Generation
	if held.Next != nil {
		newest = max(newest, held.Next.Generation)
	}
	return generation > newest
}

// rejection is the report on a version that cannot be read: what was last said
// of the work, but that this version is not applied.
func (a *Agent) rejection(k Key, generation int64, held *Record, why error) (codec.Report, error) {
	b := codec.Bundle{ID: k.ID, Source: k.Source, Cluster: a.cluster, Generation: generation}
	var status workv1.ManifestWorkStatus
	if held != nil && !held.Gone() {
		b.Metadata, b.Trace = held.Bundle.Metadata, held.Bundle.Trace
		if held.Report.ID != "" {
			var err error
			if status, err = held.Report.Status(); err != nil {
				return codec.Report{}, fmt.Errorf("reject generation %d of work %s: %w", generation, k.ID, err)
			}
		}
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: workv1.WorkApplied, Status: metav1.ConditionFalse, ObservedGeneration: generation,
		Reason: ReasonRejected, Message: fmt.Sprintf("This generation cannot be read: %.500s", why),
		LastTransitionTime: metav1.NewTime(a.o.Now().Truncate(time.Second)),
	})
	return codec.NewReport(b, status)
}

// outdated says that a record makes the refusal history: the agent holds that
// version, or a newer one.
func (r *refusal) outdated(by *Record) bool { return by != nil && !refusable(by, r.generation) }

// is says whether the refusal is the status of this hash.
func (r *refusal) is(hash string) bool { return r != nil && r.report.Hash == hash }

// unsentReports are what is to be sent of one work, in the order of their
// sequences.
func unsentReports(r *Record, refused *refusal) []codec.Report {
	var reports []codec.Report
	if r != nil && r.Unsent {
		reports = append(reports, r.Report)
	}
	if refused != nil && refused.unsent {
		reports = append(reports, refused.report)
	}
	slices.SortFunc(reports, func(x, y codec.Report) int { return cmp.Compare(x.Sequence, y.Sequence) })
	return reports
}
