// Package observe says what a live object tells of itself: the values that
// feedback rules ask for, the conditions that condition rules make of it, and
// whether it is ready. It sums the conditions of a work's manifests up to those
// of the work. It has no client and no clock: objects come in, conditions go out.
//
// # Strangers
//
// Rules and objects come from others. No path and no expression panics, hangs or
// takes memory beyond the limits that stand beside the code: paths are judged
// before they are followed, expressions run with a cost limit, a budget per
// object and a deadline, which are looked at between calls. Calls that could make
// much of little are judged before they are made. A rule that fails costs the other rules nothing.
//
// # Secrets
//
// Nothing is told of what a Secret holds: rules on Secrets are refused.
package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"
)

// Options configure an Observer. The zero value works.
type Options struct {
	// RawJSON reports values that are no integer, string or boolean as JSON, and
	// several results of one path as a list. Without it they are an error.
	RawJSON bool
	// MaxRawJSON is the longest JSON in bytes; what is longer is an error.
	// Default, and the most that the API takes: 1024.
	MaxRawJSON int
}

// MostRawJSON is the longest value of type JsonRaw that the ManifestWork API
// takes, in bytes.
const MostRawJSON = 1024

// Rules are what a work asks of one object.
type Rules struct {
	Feedback   []workv1.FeedbackRule
	Conditions []workv1.ConditionRule
}

// Empty says whether nothing is asked.
func (r Rules) Empty() bool { return len(r.Feedback) == 0 && len(r.Conditions) == 0 }

// A Result is what an object said. It is not changed once it is made, and its
// conditions have neither times nor generations.
type Result struct {
	// Values are those of the feedback rules, no two of one name.
	Values []workv1.FeedbackValue
	// Conditions are StatusFeedbackSynced, Ready, and those of the condition
	// rules, in this order. A rule of the name Ready stands in for the second.
	Conditions []metav1.Condition
	// Transient says that the same object may say something else later.
	Transient bool
}

// An Observer evaluates rules. Its methods may be called concurrently.
type Observer struct {
	options  Options
	programs *programs
}

// New returns an Observer. It fails if MaxRawJSON is not between 0 and
// MostRawJSON.
func New(o Options) (*Observer, error) {
	if o.MaxRawJSON < 0 || o.MaxRawJSON > MostRawJSON {
		return nil, fmt.Errorf("raw JSON of %d bytes in feedback: must be between 1 and %d", o.MaxRawJSON, MostRawJSON)
	}
	o.MaxRawJSON = cmp.Or(o.MaxRawJSON, MostRawJSON)
	return &Observer{options: o, programs: newPrograms()}, nil
}

// Observe asks live, which it does not change, what r asks for. A nil live means
// that there is no such object.
func (o *Observer) Observe(ctx context.Context, live *unstructured.Unstructured, r Rules) Result {
	if live == nil {
		return unobserved(r, metav1.ConditionFalse, ReasonNotFound, errAbsent)
	}
	ready, transient := readiness(live)
	values, err := o.feedback(live, r.Feedback)
	result := Result{Values: values, Transient: transient}
	result.Conditions = append(result.Conditions, feedbackCondition(r.Feedback, err))
	rules, transient := o.evaluateAll(ctx, live, r.Conditions)
	result.Transient = result.Transient || transient
	if !has(rules, ConditionReady) {
		result.Conditions = append(result.Conditions, ready)
	}
	result.Conditions = append(result.Conditions, rules...)
	return result
}

var (
	errAbsent = errors.New("the resource does not exist")
	errUnread = errors.New("the resource was not read yet")
)

// Unread is what is said of an object that could not be read. Conditions of was
// that r still asks for, and the values, stand; the others are unknown.
func Unread(r Rules, was workv1.ManifestCondition) Result {
	result := unobserved(r, metav1.ConditionUnknown, ReasonUnknown, errUnread)
	for i, c := range result.Conditions {
		for _, before := range was.Conditions {
			if before.Type == c.Type && (c.Type != ConditionFeedback || len(r.Feedback) > 0) {
				before.LastTransitionTime, before.ObservedGeneration = metav1.Time{}, 0
				result.Conditions[i] = before
			}
		}
	}
	if len(r.Feedback) > 0 {
		result.Values = was.StatusFeedbacks.Values
	}
	result.Transient = true
	return result
}

// unobserved is the result without an object: nothing is known of what it would
// say.
func unobserved(r Rules, ready metav1.ConditionStatus, reason string, why error) Result {
	feedback := feedbackCondition(r.Feedback, nil)
	if len(r.Feedback) > 0 {
		feedback = feedbackCondition(r.Feedback, why)
	}
	result := Result{Conditions: []metav1.Condition{feedback}}
	var rules []metav1.Condition
	for _, rule := range r.Conditions {
		if rule.Condition == "" || has(rules, rule.Condition) {
			continue
		}
		rules = append(rules, metav1.Condition{
			Type: rule.Condition, Status: metav1.ConditionUnknown, Reason: workv1.ConditionRuleInternalError, Message: sentence(why),
		})
	}
	if !has(rules, ConditionReady) {
		result.Conditions = append(result.Conditions, metav1.Condition{
			Type: ConditionReady, Status: ready, Reason: reason, Message: sentence(why),
		})
	}
	result.Conditions = append(result.Conditions, rules...)
	return result
}

func has(conditions []metav1.Condition, conditionType string) bool {
	for _, c := range conditions {
		if c.Type == conditionType {
			return true
		}
	}
	return false
}

func isSecret(gvk schema.GroupVersionKind) bool { return gvk.Group == "" && gvk.Kind == "Secret" }
