package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"
)

// ConditionFeedback says of a manifest whether all that its feedback rules ask
// for was reported. The reasons are OCM's.
const (
	ConditionFeedback     = "StatusFeedbackSynced"
	ReasonFeedbackSynced  = "StatusFeedbackSynced"
	ReasonFeedbackUnasked = "NoStatusFeedbackSynced"
	ReasonFeedbackFailed  = "StatusFeedbackSyncFailed"
)

const (
	// mostPaths bounds the values that are asked of one object.
	mostPaths = 100
	// mostString is the longest string that is reported, in bytes.
	mostString = 16 << 10
	// mostFeedback bounds the strings that are reported of one object, in bytes:
	// the status of a work has to fit into one object of the hub.
	mostFeedback = 64 << 10
)

// wellKnown are the values that WellKnownStatus means. Those of StatefulSets are
// beyond OCM's.
var wellKnown = map[schema.GroupVersionKind][]workv1.JsonPath{
	{Group: "apps", Version: "v1", Kind: "Deployment"}: {
		{Name: "ReadyReplicas", Path: ".status.readyReplicas"},
		{Name: "Replicas", Path: ".status.replicas"},
		{Name: "AvailableReplicas", Path: ".status.availableReplicas"},
	},
	{Group: "apps", Version: "v1", Kind: "StatefulSet"}: {
		{Name: "ReadyReplicas", Path: ".status.readyReplicas"},
		{Name: "Replicas", Path: ".status.replicas"},
		{Name: "AvailableReplicas", Path: ".status.availableReplicas"},
	},
	{Group: "apps", Version: "v1", Kind: "DaemonSet"}: {
		{Name: "NumberReady", Path: ".status.numberReady"},
		{Name: "DesiredNumberScheduled", Path: ".status.desiredNumberScheduled"},
		{Name: "NumberAvailable", Path: ".status.numberAvailable"},
	},
	{Group: "batch", Version: "v1", Kind: "Job"}: {
		{Name: "JobComplete", Path: `.status.conditions[?(@.type=="Complete")].status`},
		{Name: "JobSucceeded", Path: ".status.succeeded"},
	},
	{Version: "v1", Kind: "Pod"}: {
		{Name: "PodReady", Path: `.status.conditions[?(@.type=="Ready")].status`},
		{Name: "PodPhase", Path: ".status.phase"},
	},
}

// feedback returns the values that the rules ask for, and an error that says why
// some are missing. A value that is not there is not missing.
func (o *Observer) feedback(live *unstructured.Unstructured, rules []workv1.FeedbackRule) ([]workv1.FeedbackValue, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	if isSecret(live.GroupVersionKind()) {
		return nil, errors.New("feedback of a Secret is refused: what it holds stays on its cluster")
	}
	paths, errs := asked(live.GroupVersionKind(), rules)
	var values []workv1.FeedbackValue
	seen, size := make(map[string]bool), 0
	for _, path := range paths {
		if seen[path.Name] {
			errs = append(errs, fmt.Errorf("%.64q is asked for twice; the first is reported", path.Name))
			continue
		}
		seen[path.Name] = true
		value, err := o.value(live, path)
		if err == nil && value != nil && value.String != nil {
			if size += len(*value.String); size > mostFeedback {
				err = fmt.Errorf("the strings of this object have more than %d bytes together", mostFeedback)
			}
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%.64q: %w", path.Name, err))
		case value != nil:
			values = append(values, workv1.FeedbackValue{Name: path.Name, Value: *value})
		}
	}
	return values, errors.Join(errs...)
}

// asked lists the paths of the rules.
func asked(gvk schema.GroupVersionKind, rules []workv1.FeedbackRule) (paths []workv1.JsonPath, errs []error) {
	for _, rule := range rules {
		switch rule.Type {
		case workv1.WellKnownStatusType:
			known, ok := wellKnown[gvk]
			if !ok {
				errs = append(errs, fmt.Errorf("no status of %s is well known: ask for it with JSONPaths", clip(gvk.String())))
			}
			paths = append(paths, known...)
		case workv1.JSONPathsType:
			paths = append(paths, rule.JsonPaths...)
		default:
			errs = append(errs, fmt.Errorf("feedback rule type %.64q is not known", string(rule.Type)))
		}
		if len(paths) > mostPaths {
			errs = append(errs, fmt.Errorf("more than %d values are asked for; the first are reported", mostPaths))
			return paths[:mostPaths], errs
		}
	}
	return paths, errs
}

// value follows one path. It returns nil if nothing is there.
func (o *Observer) value(live *unstructured.Unstructured, path workv1.JsonPath) (*workv1.FieldValue, error) {
	if version := live.GroupVersionKind().Version; path.Version != "" && path.Version != version {
		return nil, fmt.Errorf("the path is for version %.64q, the resource has version %q", path.Version, version)
	}
	found, err := follow(path.Path, live.Object)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, nil
	}
	// A list is told only as raw JSON; without it the first result counts.
	var value any = found
	if len(found) == 1 || !o.options.RawJSON {
		value = found[0]
	}
	switch v := value.(type) {
	case nil:
		return nil, nil
	case int64:
		return &workv1.FieldValue{Type: workv1.Integer, Integer: &v}, nil
	case bool:
		return &workv1.FieldValue{Type: workv1.Boolean, Boolean: &v}, nil
	case string:
		if len(v) > mostString {
			return nil, fmt.Errorf("the string has %d bytes, at most %d are reported", len(v), mostString)
		}
		v = strings.ToValidUTF8(strings.Clone(v), "\uFFFD")
		return &workv1.FieldValue{Type: workv1.String, String: &v}, nil
	}
	if !o.options.RawJSON {
		return nil, fmt.Errorf("the value is %s, neither an integer nor a string nor a boolean; the agent's feature gate RawFeedbackJsonString would report it as JSON", kindOf(value))
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, errors.New("the value has no JSON")
	}
	if len(raw) > o.options.MaxRawJSON {
		return nil, fmt.Errorf("the value has %d bytes as JSON, at most %d are reported", len(raw), o.options.MaxRawJSON)
	}
	text := string(raw)
	return &workv1.FieldValue{Type: workv1.JsonRaw, JsonRaw: &text}, nil
}

// kindOf names the type of a JSON value.
func kindOf(value any) string {
	switch value.(type) {
	case float64:
		return "a number with a fraction"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "of an unknown type"
}

func feedbackCondition(rules []workv1.FeedbackRule, err error) metav1.Condition {
	c := metav1.Condition{Type: ConditionFeedback, Status: metav1.ConditionTrue, Reason: ReasonFeedbackSynced, Message: "All feedback is reported"}
	switch {
	case err != nil:
		c.Status, c.Reason = metav1.ConditionFalse, ReasonFeedbackFailed
		c.Message = sentence(errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	case len(rules) == 0:
		c.Reason, c.Message = ReasonFeedbackUnasked, "No feedback is asked for"
	}
	return c
}
