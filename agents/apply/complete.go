package apply

import (
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
// with the rule.
func (p *pass) settle() {
	before := previous(p.last)
	for _, m := range p.manifests {
		if m.outcome.action != none || !asksComplete(m.rules) {
			continue
		}
		was := before.find(m.meta)
		applied := meta.FindStatusCondition(was.Conditions, workv1.ManifestApplied)
		if !observe.Completed(was.Conditions) || applied == nil || applied.Status != metav1.ConditionTrue {
			continue
		}
		stands := *applied
		stands.ObservedGeneration = p.bundle.Generation
		m.finished = true
		m.outcome = outcome{action: unchanged, carried: &stands, presence: presenceOf(was)}
		seen := observe.Unread(m.rules, was)
		m.seen = &seen
	}
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
