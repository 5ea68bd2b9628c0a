package apply

import (
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// resolveRules reads out of a work what one of its objects is asked. Of all
// matching entries the first with rules of a sort decides which those are.
// Whether they are to be polled or watched makes no difference: a watch tells
// when an object changed, and where none does it is read at intervals.
func resolveRules(configs []workv1.ManifestConfigOption, id workv1.ResourceIdentifier) (observe.Rules, error) {
	var r observe.Rules
	for i := range configs {
		if !matches(configs[i].ResourceIdentifier, id) {
			continue
		}
		if len(r.Feedback) == 0 {
			r.Feedback = configs[i].FeedbackRules
		}
		if len(r.Conditions) == 0 {
			r.Conditions = configs[i].ConditionRules
		}
	}
	if err := observe.Check(r); err != nil {
		return observe.Rules{}, err
	}
	return r, nil
}

// sumRules identifies rules.
func sumRules(r observe.Rules) string {
	if r.Empty() {
		return ""
	}
	return digestJSON(r)
}
