package apply

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// complete says whether a work is done with: a rule found it complete in this
// very generation, all of it is applied, and nothing that an earlier generation
// had is left. It is not looked at any more until it has a new generation, in
// which what is complete stays as it is and the rest is applied.
func (a *Applier) complete(p *pass) bool {
	done := meta.FindStatusCondition(p.last.Conditions, workv1.WorkComplete)
	applied := meta.FindStatusCondition(p.last.Conditions, workv1.WorkApplied)
	generation := p.bundle.Generation
	if done == nil || done.Status != metav1.ConditionTrue || done.Reason != observe.ReasonAggregated || done.ObservedGeneration != generation ||
		applied == nil || applied.Status != metav1.ConditionTrue || applied.ObservedGeneration != generation ||
		generation == 0 { // Sources without generations change works under it.
		return false
	}
	a.mu.Lock()
	h := a.holdings[p.key]
	a.mu.Unlock()
	if h == nil {
		return true
	}
	if h.unlisted || a.outdated(h.entries) {
		return false
	}
	a.resolve(p)
	return len(dropped(h.entries, p.entries())) == 0
}

// settle finds the manifests that a rule found complete: they are not applied
// again, whatever they say now, for what they describe has been done. That ends
// with the rule. One that another rule than that of now found complete is left to
// reexamine.
func (a *Applier) settle(ctx context.Context, p *pass) error {
	asked := slices.ContainsFunc(p.manifests, func(m *manifest) bool { return m.outcome.action == none && asksComplete(m.rules) })
	if !asked {
		return nil
	}
	recorded, err := a.completionsOf(ctx, p)
	if err != nil {
		return err
	}
	before := previous(p.last)
	for _, m := range p.manifests {
		if m.outcome.action != none || !asksComplete(m.rules) {
			continue
		}
		record, known := recorded[completionKey(p.key, m.id())]
		was := before.find(m.meta)
		applied := meta.FindStatusCondition(was.Conditions, workv1.ManifestApplied)
		stands := applied != nil && applied.Status == metav1.ConditionTrue
		m.outcome = outcome{action: unchanged, presence: presenceOf(was)}
		switch {
		case known && record.Rule != sumComplete(m.rules):
			m.outcome, m.reopened = outcome{}, true
			continue
		case observe.Completed(was.Conditions) && (known || stands):
		case known:
			was = p.recall(was, m, record)
			m.outcome.presence = present // It was read when it was complete.
		default:
			m.outcome = outcome{}
			continue
		}
		if stands {
			carried := *applied
			carried.ObservedGeneration = p.bundle.Generation
			m.outcome.carried = &carried
		}
		m.finished = true
		seen := observe.Unread(m.rules, was)
		m.seen = &seen
	}
	return nil
}

// recall puts a completion that the last report does not know of into it, as if
// it had been reported when it was recorded.
func (p *pass) recall(was workv1.ManifestCondition, m *manifest, record completion) workv1.ManifestCondition {
	done := metav1.Condition{
		Type: workv1.ManifestComplete, Status: metav1.ConditionTrue, Reason: workv1.ConditionRuleEvaluated,
		Message: "A rule found the resource complete earlier", LastTransitionTime: metav1.Unix(record.At, 0),
	}
	was.ResourceMeta, was.Conditions = m.meta, slices.Clone(was.Conditions)
	meta.SetStatusCondition(&was.Conditions, done)
	p.last.ResourceStatus.Manifests = append(p.last.ResourceStatus.Manifests, was)
	whole := meta.FindStatusCondition(p.last.Conditions, workv1.WorkComplete)
	if whole == nil || whole.Status != metav1.ConditionTrue || whole.LastTransitionTime.Before(&done.LastTransitionTime) {
		meta.RemoveStatusCondition(&p.last.Conditions, workv1.WorkComplete)
		done.Reason = observe.ReasonAggregated
		p.last.Conditions = append(p.last.Conditions, done)
	}
	return was
}

// reexamine holds an object that an earlier rule found complete against the rule
// of now, before anything is written. It says whether the manifest has its
// outcome. An object that is gone cannot answer, and is made again.
func (a *Applier) reexamine(ctx context.Context, p *pass, m *manifest) bool {
	there, err := a.look(ctx, p, m)
	switch {
	case err != nil:
		m.outcome = a.rights.judge(p, m, unread(m, err))
		return true
	case there == present && m.seen != nil && observe.Completed(m.seen.Conditions):
		m.outcome, m.finished = done(unchanged), true
		return true
	}
	m.seen = nil
	return false
}

func asksComplete(r observe.Rules) bool {
	for _, rule := range r.Conditions {
		if rule.Condition == workv1.ManifestComplete {
			return true
		}
	}
	return false
}

// presenceOf reads the presence that was reported of an object.
func presenceOf(was workv1.ManifestCondition) presence {
	c := meta.FindStatusCondition(was.Conditions, workv1.ManifestAvailable)
	switch {
	case c == nil:
		return presenceUnknown
	case c.Status == metav1.ConditionTrue:
		return present
	case c.Status == metav1.ConditionFalse:
		return absent
	}
	return presenceUnknown
}
