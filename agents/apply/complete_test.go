package apply_test

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/codec"
)

const completeAnnotation = "work.fleetcast.io/complete"

var complete = rule(expression("Complete", "true"))

// TestCompleteOutlivesTheStore is about an agent without its last report: on
// another disk, say.
func TestCompleteOutlivesTheStore(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("m", map[string]string{"x": "1"}))
	w.asks(complete, "", "configmaps", "m")
	before := w.mustApply()
	want(t, "complete", condition(before, "Complete"), "True ConditionRulesAggregated")
	w.mustApply()
	c.remove(configMaps, c.namespace, "m") // As a Job with ttlSecondsAfterFinished goes.
	w.mustApply()
	if c.get(configMaps, c.namespace, "m") != nil {
		t.Fatal("made again by an agent that has its report")
	}
	for _, look := range []func() workv1.ManifestWorkStatus{w.observe, w.mustApply, w.observe} {
		c.restart(apply.Options{})
		w.last = codec.Report{}
		_ = look()
		status := w.mustApply()
		if c.get(configMaps, c.namespace, "m") != nil {
			t.Fatal("what was complete was made again after the agent lost its store")
		}
		want(t, "Complete", condition(status, "Complete"), "True ConditionRulesAggregated")
		want(t, "Applied", condition(status, "Applied"), workApplied)
		want(t, "Available", condition(status, "Available"), condition(before, "Available"))
		want(t, "since when", meta.FindStatusCondition(status.Conditions, "Complete").LastTransitionTime.Unix(),
			meta.FindStatusCondition(before.Conditions, "Complete").LastTransitionTime.Unix())
	}
	w.work.UID = "another" // The work was deleted and made again under its name.
	w.last = codec.Report{}
	w.mustApply()
	if c.get(configMaps, c.namespace, "m") == nil {
		t.Error("another work of the same name is taken for complete")
	}
}

// TestCompleteIsRecordedFirst cuts the wire between the two.
func TestCompleteIsRecordedFirst(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("m", map[string]string{"x": "1"}))
	w.mustApply()
	w.asks(complete, "", "configmaps", "m")
	w.work.Generation++
	c.wire.cut(func(r *http.Request) bool {
		return r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/appliedmanifestworks/")
	})
	status, err := w.apply()
	if err == nil {
		t.Error("Apply does not ask for another try")
	}
	if got := condition(status, "Complete"); strings.HasPrefix(got, "True") {
		t.Errorf("Complete = %s before it was recorded", got)
	}
	c.wire.cut(nil)
	want(t, "next try", condition(w.mustApply(), "Complete"), "True ConditionRulesAggregated")
	if w.appliedWork().Annotations[completeAnnotation] == "" {
		t.Error("nothing was recorded")
	}
	w.set(c.configMap("m", map[string]string{"x": "2"}))
	c.wire.requests()
	w.mustApply()
	want(t, "writes once it is recorded", c.wire.writes(), []string{})
	w.work.Spec.ManifestConfigs = nil
	w.set(c.configMap("m", map[string]string{"x": "3"}))
	w.mustApply()
	want(t, "it ends with the rule", w.appliedWork().Annotations[completeAnnotation], "")
	want(t, "and is applied", c.data("m"), map[string]string{"x": "3"})
}

// TestCompleteRuleIsCorrected asks again by the rule of now.
func TestCompleteRuleIsCorrected(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("m", map[string]string{"x": "1"}))
	w.asks(complete, "", "configmaps", "m")
	w.mustApply()
	correct := func(text, x string) workv1.ManifestWorkStatus {
		w.work.Spec.ManifestConfigs = nil
		w.asks(rule(expression("Complete", text)), "", "configmaps", "m")
		w.set(c.configMap("m", map[string]string{"x": x}))
		w.mustApply()
		return w.mustApply()
	}
	want(t, "the new rule finds it incomplete", condition(correct("object.data.x == '3'", "2"), "Complete"), "False ConditionRulesAggregated")
	want(t, "so it is applied", c.data("m"), map[string]string{"x": "2"})
	want(t, "it becomes complete", condition(correct("object.data.x == '3'", "3"), "Complete"), "True ConditionRulesAggregated")
	want(t, "another rule finds it complete, too", condition(correct("object.data.x != '1'", "4"), "Complete"), "True ConditionRulesAggregated")
	want(t, "so it is not applied", c.data("m"), map[string]string{"x": "3"})
	want(t, "the first rule again is a new question", condition(correct("object.data.x == '4'", "5"), "Complete"), "False ConditionRulesAggregated")
	want(t, "and it is applied", c.data("m"), map[string]string{"x": "5"})
}
