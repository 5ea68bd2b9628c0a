package observe

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
)

// ReasonAggregated is that of a condition of a work that condition rules of its
// manifests make.
const ReasonAggregated = "ConditionRulesAggregated"

// rulePrefix begins the reasons of conditions that rules make.
const rulePrefix = "ConditionRule"

// ByRule says whether a rule made the condition of a manifest.
func ByRule(c metav1.Condition) bool { return strings.HasPrefix(c.Reason, rulePrefix) }

// Completed says whether a rule found a manifest complete: it is not applied any
// more.
func Completed(conditions []metav1.Condition) bool {
	c := meta.FindStatusCondition(conditions, workv1.ManifestComplete)
	return c != nil && c.Status == metav1.ConditionTrue && ByRule(*c)
}

// Aggregate returns the conditions of a work that its manifests' conditions make,
// without times and generations: those of the condition rules, in the order of
// their names, and Progressing and Degraded unless rules make them.
func Aggregate(manifests []workv1.ManifestCondition) []metav1.Condition {
	byType := make(map[string][]metav1.Condition)
	for _, m := range manifests {
		for _, c := range m.Conditions {
			if ByRule(c) {
				byType[c.Type] = append(byType[c.Type], c)
			}
		}
	}
	var conditions []metav1.Condition
	for conditionType, of := range byType {
		conditions = append(conditions, aggregateOne(conditionType, of))
	}
	slices.SortFunc(conditions, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	for _, c := range progress(manifests) {
		if byType[c.Type] == nil {
			conditions = append(conditions, c)
		}
	}
	return conditions
}

func aggregateOne(conditionType string, of []metav1.Condition) metav1.Condition {
	// What weighs most comes first: of most conditions that they are not met, of
	// progress that there is some.
	weights := []metav1.ConditionStatus{metav1.ConditionFalse, metav1.ConditionUnknown, metav1.ConditionTrue}
	if conditionType == workv1.WorkProgressing {
		weights = []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionUnknown, metav1.ConditionFalse}
	}
	c := metav1.Condition{
		Type: conditionType, Status: metav1.ConditionUnknown, Reason: ReasonAggregated,
		Message: fmt.Sprintf("Aggregated from %d manifest conditions", len(of)),
	}
	for _, status := range weights {
		if slices.ContainsFunc(of, func(c metav1.Condition) bool { return c.Status == status }) {
			c.Status = status
			break
		}
	}
	if len(of) == 1 {
		c.Message = of[0].Message
	}
	return c
}

// progress says whether a work is on its way, and whether something of it failed.
// Rollouts read both: they take a work for failed only while it is progressing,
// so a failed manifest leaves it there.
func progress(manifests []workv1.ManifestCondition) []metav1.Condition {
	var moving, broken []string
	for _, m := range manifests {
		applied := meta.IsStatusConditionTrue(m.Conditions, workv1.ManifestApplied)
		ready := meta.FindStatusCondition(m.Conditions, ConditionReady)
		switch {
		case !applied:
			moving = append(moving, describe(m.ResourceMeta, "not applied"))
		case ready != nil && ready.Reason == ReasonFailed:
			broken = append(broken, describe(m.ResourceMeta, ready.Message))
		case Completed(m.Conditions):
		case ready == nil || ready.Status != metav1.ConditionTrue:
			why := "unknown"
			if ready != nil {
				why = ready.Message
			}
			moving = append(moving, describe(m.ResourceMeta, why))
		}
	}
	progressing := metav1.Condition{
		Type: workv1.WorkProgressing, Status: metav1.ConditionFalse, Reason: workv1.WorkProgressingReasonCompleted,
		Message: fmt.Sprintf("All %d resources are as they should be", len(manifests)),
	}
	degraded := metav1.Condition{
		Type: workv1.WorkDegraded, Status: metav1.ConditionFalse, Reason: ReasonNoneFailed, Message: "No resource has failed",
	}
	if len(moving) > 0 {
		progressing.Status, progressing.Reason = metav1.ConditionTrue, workv1.WorkProgressingReasonApplying
		progressing.Message = enumerate(moving, len(manifests), "are not there yet")
	}
	if len(broken) > 0 {
		degraded.Status, degraded.Reason = metav1.ConditionTrue, ReasonSomeFailed
		degraded.Message = enumerate(broken, len(manifests), "have failed")
		progressing.Status, progressing.Reason = metav1.ConditionTrue, workv1.WorkProgressingReasonFailed
		if len(moving) == 0 {
			progressing.Message = degraded.Message
		}
	}
	return []metav1.Condition{progressing, degraded}
}

// Reasons of the condition Degraded of a work.
const (
	ReasonNoneFailed = "NoResourceFailed"
	ReasonSomeFailed = "ResourcesFailed"
)

func describe(m workv1.ManifestResourceMeta, why string) string {
	name := m.Name
	if m.Namespace != "" {
		name = m.Namespace + "/" + name
	}
	if m.Kind == "" {
		return fmt.Sprintf("manifest %d: %s", m.Ordinal, why)
	}
	return fmt.Sprintf("%s %s: %s", m.Kind, name, why)
}

// enumerate tells of how many, and of the first few which.
func enumerate(texts []string, of int, what string) string {
	const most = 3
	message := fmt.Sprintf("%d of %d resources %s: %s", len(texts), of, what, strings.Join(texts[:min(most, len(texts))], "; "))
	if len(texts) > most {
		message += "; and others"
	}
	return clip(message)
}
