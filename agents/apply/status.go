package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// statusOf says what became of a work. It takes transition times from what was
// last said of it.
func (a *Applier) statusOf(p *pass, now metav1.Time) workv1.ManifestWorkStatus {
	byOrdinal := slices.Clone(p.manifests)
	slices.SortFunc(byOrdinal, func(a, b *manifest) int { return int(a.meta.Ordinal) - int(b.meta.Ordinal) })
	before, generation := previous(p.last), p.bundle.Generation

	var status workv1.ManifestWorkStatus
	for _, m := range byOrdinal {
		status.ResourceStatus.Manifests = append(status.ResourceStatus.Manifests,
			manifestStatus(m, a.said(m, before.find(m.meta)), before.find(m.meta), generation, now))
	}
	work := []metav1.Condition{workApplied(byOrdinal), workAvailable(byOrdinal)}
	if p.left != nil {
		work[0].Message = clip(work[0].Message + "; what the work dropped is not all removed: " + p.left.Error())
	}
	for _, condition := range override(work, observe.Aggregate(status.ResourceStatus.Manifests)) {
		condition.ObservedGeneration = generation
		status.Conditions = append(status.Conditions, stamp(condition, p.last.Conditions, now))
	}
	return status
}

// said is what the object of a manifest says, or is last known to have said.
func (a *Applier) said(m *manifest, was workv1.ManifestCondition) observe.Result {
	switch {
	case m.seen != nil:
		return *m.seen
	case m.outcome.presence == absent:
		return a.observer.Observe(context.Background(), nil, m.rules)
	}
	return observe.Unread(m.rules, was)
}

func manifestStatus(m *manifest, said observe.Result, was workv1.ManifestCondition, generation int64, now metav1.Time) workv1.ManifestCondition {
	status := workv1.ManifestCondition{ResourceMeta: m.meta, StatusFeedbacks: workv1.StatusFeedbackResult{Values: said.Values}}
	own := []metav1.Condition{appliedCondition(m.outcome, generation), availableCondition(m)}
	for _, condition := range override(own, said.Conditions) {
		if observe.ByRule(condition) {
			condition.ObservedGeneration = generation
		}
		condition = stamp(condition, was.Conditions, now)
		if condition.Type == observe.ConditionFeedback && !equality.Semantic.DeepEqual(said.Values, was.StatusFeedbacks.Values) {
			condition.LastTransitionTime = now
		}
		status.Conditions = append(status.Conditions, condition)
	}
	return status
}

// override puts conditions behind others, and in the place of those of their type:
// a rule may say better than the agent when something is available.
func override(conditions, by []metav1.Condition) []metav1.Condition {
	for _, c := range by {
		if i := slices.IndexFunc(conditions, func(own metav1.Condition) bool { return own.Type == c.Type }); i >= 0 {
			conditions[i] = c
		} else {
			conditions = append(conditions, c)
		}
	}
	return conditions
}

// A workRefusal is the status of a work none of whose manifests is looked at.
func workRefusal(reason string, err error, last []metav1.Condition, generation int64, now metav1.Time) workv1.ManifestWorkStatus {
	return workv1.ManifestWorkStatus{Conditions: []metav1.Condition{stamp(metav1.Condition{
		Type: workv1.WorkApplied, Status: metav1.ConditionFalse, Reason: reason,
		Message: clip(err.Error()), ObservedGeneration: generation,
	}, last, now)}}
}

func appliedCondition(o outcome, generation int64) metav1.Condition {
	if o.carried != nil {
		return *o.carried
	}
	c := metav1.Condition{
		Type: workv1.ManifestApplied, Status: metav1.ConditionTrue, ObservedGeneration: generation,
		Reason: api.ReasonManifestApplied, Message: "The manifest is applied",
	}
	if o.note != "" {
		c.Message = clip(c.Message + ", " + o.note)
	}
	if len(o.waiting) > 0 {
		c.Message = clip(c.Message + ", which keeps the object from " + strings.Join(o.waiting, ", ") + ": it wants the object otherwise and has it later")
	}
	if !o.applied() {
		c.Status, c.Reason = metav1.ConditionFalse, cmp.Or(o.reason, api.ReasonManifestFailed)
		c.Message = "The manifest is not applied"
		if o.err != nil {
			c.Message = clip("The manifest is not applied: " + o.err.Error())
		}
	}
	return c
}

func availableCondition(m *manifest) metav1.Condition {
	c := metav1.Condition{Type: workv1.ManifestAvailable}
	switch {
	case m.object == nil || !m.resolved():
		c.Status, c.Reason = metav1.ConditionUnknown, api.ReasonResourceUnidentified
		c.Message = "It is not known which object the manifest means"
	case m.outcome.presence == present:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, api.ReasonResourceAvailable, "The resource exists"
	case m.outcome.presence == absent:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, api.ReasonResourceNotAvailable, "The resource does not exist"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, api.ReasonResourceUnfetched, "The resource could not be looked at"
		if m.outcome.lookup != nil {
			c.Message = clip("The resource could not be looked at: " + m.outcome.lookup.Error())
		}
	}
	return c
}

func workApplied(manifests []*manifest) metav1.Condition {
	missing := 0
	for _, m := range manifests {
		if !m.outcome.applied() {
			missing++
		}
	}
	if missing > 0 {
		return metav1.Condition{
			Type: workv1.WorkApplied, Status: metav1.ConditionFalse, Reason: api.ReasonWorkFailed,
			Message: fmt.Sprintf("%d of %d manifests are not applied", missing, len(manifests)),
		}
	}
	return metav1.Condition{
		Type: workv1.WorkApplied, Status: metav1.ConditionTrue, Reason: api.ReasonWorkApplied,
		Message: fmt.Sprintf("All %d manifests are applied", len(manifests)),
	}
}

func workAvailable(manifests []*manifest) metav1.Condition {
	missing, unknown := 0, 0
	for _, m := range manifests {
		switch availableCondition(m).Status {
		case metav1.ConditionFalse:
			missing++
		case metav1.ConditionUnknown:
			unknown++
		case metav1.ConditionTrue:
		}
	}
	c := metav1.Condition{Type: workv1.WorkAvailable}
	switch {
	case missing > 0:
		c.Status, c.Reason = metav1.ConditionFalse, api.ReasonResourcesNotAvailable
		c.Message = fmt.Sprintf("%d of %d resources are not available", missing, len(manifests))
	case unknown > 0:
		c.Status, c.Reason = metav1.ConditionUnknown, api.ReasonResourcesUnknown
		c.Message = fmt.Sprintf("The state of %d of %d resources is not known", unknown, len(manifests))
	default:
		c.Status, c.Reason = metav1.ConditionTrue, api.ReasonResourcesAvailable
		c.Message = fmt.Sprintf("All %d resources are available", len(manifests))
	}
	return c
}

// anew are the conditions that begin anew with each generation: rollouts measure
// from their transition how long a cluster takes for it. What a rule says of
// them lasts as long as it says the same.
var anew = map[string]bool{workv1.WorkApplied: true, workv1.WorkProgressing: true, workv1.WorkDegraded: true}

// stamp gives a condition its transition time: that of the same condition
// before, unless its status changed, or the generation of one that begins anew.
func stamp(c metav1.Condition, last []metav1.Condition, now metav1.Time) metav1.Condition {
	c.LastTransitionTime = now
	for _, was := range last {
		if was.Type == c.Type && was.Status == c.Status &&
			(!anew[c.Type] || observe.ByRule(c) || was.ObservedGeneration == c.ObservedGeneration) &&
			!was.LastTransitionTime.IsZero() {
			c.LastTransitionTime = was.LastTransitionTime
		}
	}
	return c
}

// A history finds what was last said of a manifest: of the same ordinal if
// nothing moved, else of the same object if there was only one.
type history struct {
	exact map[workv1.ManifestResourceMeta]workv1.ManifestCondition
	moved map[workv1.ManifestResourceMeta][]workv1.ManifestCondition
}

func previous(last workv1.ManifestWorkStatus) history {
	h := history{
		exact: make(map[workv1.ManifestResourceMeta]workv1.ManifestCondition, len(last.ResourceStatus.Manifests)),
		moved: make(map[workv1.ManifestResourceMeta][]workv1.ManifestCondition, len(last.ResourceStatus.Manifests)),
	}
	for _, c := range last.ResourceStatus.Manifests {
		h.exact[c.ResourceMeta] = c
		key := c.ResourceMeta
		key.Ordinal = 0
		h.moved[key] = append(h.moved[key], c)
	}
	return h
}

func (h history) find(m workv1.ManifestResourceMeta) workv1.ManifestCondition {
	if c, ok := h.exact[m]; ok {
		return c
	}
	m.Ordinal = 0
	if found := h.moved[m]; len(found) == 1 {
		return found[0]
	}
	return workv1.ManifestCondition{}
}
