package observe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/cel-go/common/types"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// mostRules bounds the condition rules of one object, and mostExpressions the
// expressions of them all.
const mostRules, mostExpressions = 50, 100

// reserved are conditions that speak of the agent's or the hub's own work. A rule
// that set them could have a work taken for deleted.
var reserved = map[string]bool{
	workv1.WorkApplied: true, ConditionFeedback: true, api.ConditionDeleted: true,
	api.ConditionDeleting: true, api.ConditionDispatched: true,
}

// Check says what is wrong with the rules whatever the object: conditions of a
// name that no status can hold, or that are not a rule's to set. They could not
// even be reported.
func Check(r Rules) error {
	if len(r.Conditions) > mostRules {
		return fmt.Errorf("conditionRules: %d rules, at most %d are allowed", len(r.Conditions), mostRules)
	}
	expressions := 0
	for _, rule := range r.Conditions {
		if expressions += len(rule.CelExpressions); expressions > mostExpressions {
			return fmt.Errorf("conditionRules: more than %d expressions", mostExpressions)
		}
		switch {
		case rule.Condition == "" && rule.Type == workv1.WellKnownConditionsType:
		case reserved[rule.Condition]:
			return fmt.Errorf("conditionRules: the condition %s cannot be set by a rule", rule.Condition)
		case len(validation.IsQualifiedName(rule.Condition)) > 0:
			return fmt.Errorf("conditionRules: %.64q is no name for a condition", rule.Condition)
		}
	}
	for _, rule := range r.Feedback {
		for _, path := range rule.JsonPaths {
			if path.Name == "" {
				return errors.New("feedbackRules: a path has no name")
			}
		}
	}
	return nil
}

// evaluateAll returns the conditions that the rules make of the object. Of two
// rules for one condition the first counts.
func (o *Observer) evaluateAll(ctx context.Context, live *unstructured.Unstructured, rules []workv1.ConditionRule) (conditions []metav1.Condition, transient bool) {
	left := &budget{costPerObject}
	for _, rule := range rules {
		if rule.Condition == "" || has(conditions, rule.Condition) {
			continue
		}
		c, ok := o.evaluate(ctx, live, rule, left)
		if !ok {
			continue
		}
		transient = transient || c.Reason == workv1.ConditionRuleInternalError
		conditions = append(conditions, c)
	}
	return conditions, transient
}

// evaluate returns the condition of one rule, if the rule is about such objects
// at all.
func (o *Observer) evaluate(ctx context.Context, live *unstructured.Unstructured, rule workv1.ConditionRule, left *budget) (metav1.Condition, bool) {
	invalid := func(why string) metav1.Condition {
		return metav1.Condition{
			Type: rule.Condition, Status: metav1.ConditionUnknown, Reason: workv1.ConditionRuleInvalid, Message: clip(why),
		}
	}
	if isSecret(live.GroupVersionKind()) {
		return invalid("Conditions of a Secret are refused: what it holds stays on its cluster"), true
	}
	c := metav1.Condition{Type: rule.Condition, Status: metav1.ConditionTrue, Reason: workv1.ConditionRuleEvaluated}
	variables := map[string]any{"object": live.Object}
	met, words := true, "The expressions of the rule are true"
	switch rule.Type {
	case workv1.WellKnownConditionsType:
		var known bool
		if met, words, known = wellKnownCondition(live, rule.Condition); !known {
			return metav1.Condition{}, false
		}
	case workv1.CelConditionExpressionsType:
		if len(rule.CelExpressions) == 0 {
			return invalid("The rule has no expressions"), true
		}
		for _, expression := range rule.CelExpressions {
			value, err := o.truth(ctx, expression, variables, left)
			if err != nil {
				return failed(c, err), true
			}
			if met = met && value; !met {
				words = "An expression of the rule is false"
				break
			}
		}
	default:
		return invalid(fmt.Sprintf("The rule type %.64q is not known", string(rule.Type))), true
	}
	if !met {
		c.Status = metav1.ConditionFalse
	}
	c.Message = o.message(ctx, rule, words, variables, met, left)
	return c, true
}

func failed(c metav1.Condition, err error) metav1.Condition {
	c.Status, c.Reason, c.Message = metav1.ConditionFalse, workv1.ConditionRuleExpressionError, sentence(err)
	if errors.Is(err, errLate) || errors.Is(err, errBudget) {
		c.Status, c.Reason = metav1.ConditionUnknown, workv1.ConditionRuleInternalError
	}
	return c
}

func (o *Observer) truth(ctx context.Context, expression string, variables map[string]any, left *budget) (bool, error) {
	// An expression that may be used for messages as well has no result here.
	variables["result"] = types.NewErr("result is there for messageExpression only")
	out, err := o.programs.evaluate(ctx, expression, variables, left)
	if err != nil {
		return false, err
	}
	value, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the expression is of type %s, not bool", out.Type().TypeName())
	}
	return value, nil
}

// message is that of a rule that was evaluated: what its expression makes, its
// fixed text, or words.
func (o *Observer) message(ctx context.Context, rule workv1.ConditionRule, words string, variables map[string]any, met bool, left *budget) string {
	if rule.MessageExpression != "" {
		variables["result"] = met
		out, err := o.programs.evaluate(ctx, rule.MessageExpression, variables, left)
		if err != nil {
			return clip("messageExpression: " + err.Error())
		}
		text, ok := out.Value().(string)
		if !ok {
			return fmt.Sprintf("messageExpression: the expression is of type %s, not string", out.Type().TypeName())
		}
		if strings.TrimSpace(text) != "" {
			return clip(text)
		}
	}
	if rule.Message != "" {
		return clip(rule.Message)
	}
	return words
}

// wellKnownCondition says whether a condition is met by what such objects always
// tell. Only Complete of Jobs and Pods is known.
func wellKnownCondition(live *unstructured.Unstructured, condition string) (met bool, message string, known bool) {
	if condition != workv1.ManifestComplete {
		return false, "", false
	}
	switch live.GroupVersionKind() {
	case batchv1.SchemeGroupVersion.WithKind("Job"):
		conditions, _, _ := unstructured.NestedFieldNoCopy(live.Object, "status", "conditions")
		list, _ := conditions.([]any)
		for _, entry := range list {
			c, _ := entry.(map[string]any)
			ended := c["type"] == string(batchv1.JobComplete) || c["type"] == string(batchv1.JobFailed)
			if ended && c["status"] == string(corev1.ConditionTrue) {
				return true, "The Job has ended", true
			}
		}
		return false, "The Job has not ended", true
	case corev1.SchemeGroupVersion.WithKind("Pod"):
		phase, _, _ := unstructured.NestedString(live.Object, "status", "phase")
		if phase == string(corev1.PodSucceeded) || phase == string(corev1.PodFailed) {
			return true, "The Pod has ended in phase " + phase, true
		}
		return false, "The Pod has not ended", true
	}
	return false, "", false
}
