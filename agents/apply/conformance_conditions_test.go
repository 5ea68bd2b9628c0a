package apply_test

import (
	"encoding/json"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
	"github.com/fleetcast-io/fleetcast/codec"
)

func rule(rules ...workv1.ConditionRule) workv1.ManifestConfigOption {
	return workv1.ManifestConfigOption{ConditionRules: rules}
}

func expression(condition, text string) workv1.ConditionRule {
	return workv1.ConditionRule{Condition: condition, Type: workv1.CelConditionExpressionsType, CelExpressions: []string{text}}
}

var jobCompletes = rule(workv1.ConditionRule{Condition: workv1.ManifestComplete, Type: workv1.WellKnownConditionsType})

func (c *cluster) create(r schema.GroupVersionResource, object map[string]any) {
	c.Helper()
	raw, err := json.Marshal(object)
	if err != nil {
		c.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		c.Fatal(err)
	}
	if _, err := c.of(r, c.namespace).Create(c.ctx, u, metav1.CreateOptions{}); err != nil {
		c.Fatalf("create: %v", err)
	}
}

// age has all that was said of the work be said earlier.
func (s *story) age(by time.Duration) {
	s.Helper()
	status, err := s.last.Status()
	if err != nil {
		s.Fatal(err)
	}
	older := func(conditions []metav1.Condition) {
		for i := range conditions {
			conditions[i].LastTransitionTime = metav1.NewTime(conditions[i].LastTransitionTime.Add(-by))
		}
	}
	older(status.Conditions)
	for i := range status.ResourceStatus.Manifests {
		older(status.ResourceStatus.Manifests[i].Conditions)
	}
	if s.last, err = codec.NewReport(s.bundle(), status); err != nil {
		s.Fatal(err)
	}
}

func TestConformanceConditions(t *testing.T) {
	t.Run("conditionRules", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.job("j"), c.configMap("m", map[string]string{"x": "1"}))
		w.asks(jobCompletes, "batch", "jobs", "j")
		both := expression("Good", "object.data.x == '1'")
		both.CelExpressions = append(both.CelExpressions, "has(object.metadata.uid)")
		both.MessageExpression = "'x is ' + object.data.x + (result ? ', good' : ', bad')"
		w.asks(rule(both, expression("Bad", "object.data.x == '2'")), "", "configmaps", "m")
		status := w.mustApply()
		want(t, "Job", manifestCondition(status, 0, "Complete"), "False ConditionRuleEvaluated")
		want(t, "all expressions are true", manifestCondition(status, 1, "Good"), "True ConditionRuleEvaluated")
		want(t, "one is not", manifestCondition(status, 1, "Bad"), "False ConditionRuleEvaluated")
		want(t, "message", meta.FindStatusCondition(status.ResourceStatus.Manifests[1].Conditions, "Good").Message, "x is 1, good")
	})

	t.Run("condition results", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("m", map[string]string{"x": "1"}))
		w.asks(rule(
			expression("Evaluated", "true"), expression("Broken", "object."), expression("Missing", "object.status.x"),
			workv1.ConditionRule{Condition: "Invalid", Type: "Oracle"},
			expression("Endless", "[1,2,3,4,5,6,7,8,9,10].map(a,[1,2,3,4,5,6,7,8,9,10].map(b,[1,2,3,4,5,6,7,8,9,10].map(c,[1,2,3,4,5,6,7,8,9,10].map(d,[1,2,3,4,5,6,7,8,9,10].map(e,[1,2,3,4,5,6,7,8,9,10].map(f,[1,2,3,4,5,6,7,8,9,10].map(g,a+b+c+d+e+f+g))))))).size()>0"),
		), "", "configmaps", "m")
		status := w.mustApply()
		for condition, result := range map[string]string{
			"Evaluated": "True ConditionRuleEvaluated", "Broken": "False ConditionRuleExpressionError",
			"Missing": "False ConditionRuleExpressionError", "Invalid": "Unknown ConditionRuleInvalid",
		} {
			want(t, condition, manifestCondition(status, 0, condition), result)
		}
		// On a slow machine the deadline comes first, else the limit of the costs.
		if got := manifestCondition(status, 0, "Endless"); got != "Unknown ConditionRuleInternalError" && got != "False ConditionRuleExpressionError" {
			t.Errorf("an expression without end is %s", got)
		}
		want(t, "the manifest is applied nevertheless", manifestCondition(status, 0, workv1.ManifestApplied), manifestApplied)

		w.work.Generation++
		w.work.Spec.ManifestConfigs = nil
		w.asks(rule(expression("Evaluated", "true")), "", "configmaps", "m")
		status = w.mustApply()
		want(t, "a rule that stays", manifestCondition(status, 0, "Evaluated"), "True ConditionRuleEvaluated")
		want(t, "a rule that is gone", manifestCondition(status, 0, "Broken"), "none")
		want(t, "and its aggregate", condition(status, "Broken"), "none")
	})

	t.Run("aggregation", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.configMap("b", map[string]string{"x": "2"}))
		all := expression("Agreed", "object.data.x == '1'")
		one := expression("Progressing", "object.data.x == '1'")
		w.asks(rule(all, one, expression("Same", "true")), "", "configmaps", "*")
		status := w.mustApply()
		const aggregated = " ConditionRulesAggregated"
		want(t, "one is false", condition(status, "Agreed"), "False"+aggregated)
		want(t, "of progress one is enough, and the rule wins over the agent", condition(status, "Progressing"), "True"+aggregated)
		want(t, "all are true", condition(status, "Same"), "True"+aggregated)
		want(t, "message", meta.FindStatusCondition(status.Conditions, "Same").Message, "Aggregated from 2 manifest conditions")
		want(t, "generation", meta.FindStatusCondition(status.Conditions, "Same").ObservedGeneration, w.work.Generation)
		w.set(c.configMap("a", map[string]string{"x": "1"}))
		want(t, "message of a single one", meta.FindStatusCondition(w.mustApply().Conditions, "Agreed").Message, "The expressions of the rule are true")
	})

	t.Run("Complete", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.job("j"), c.configMap("m", map[string]string{"x": "1"}))
		w.asks(jobCompletes, "batch", "jobs", "j")
		want(t, "before", condition(w.mustApply(), "Complete"), "False ConditionRulesAggregated")
		c.setStatus(jobs, "j", jobDone)
		status := w.mustApply()
		want(t, "after", condition(status, "Complete"), "True ConditionRulesAggregated")
		want(t, "generation", meta.FindStatusCondition(status.Conditions, "Complete").ObservedGeneration, w.work.Generation)

		c.wire.requests()
		c.patch(configMaps, c.namespace, "m", `{"data":{"x":"9"}}`)
		want(t, "Apply of a complete work", w.mustApply(), status)
		want(t, "Observe of a complete work", w.observe(), status)
		want(t, "requests for a complete work", c.wire.requests(), []string(nil))

		// A new generation: what is complete is not done again, the rest is.
		background := metav1.DeletePropagationBackground
		if err := c.of(jobs, c.namespace).Delete(c.ctx, "j", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			t.Fatal(err)
		}
		w.set(c.job("j"), c.configMap("m", map[string]string{"x": "2"}))
		w.age(time.Hour)
		before, err := w.last.Status()
		if err != nil {
			t.Fatal(err)
		}
		status = w.mustApply()
		if c.get(jobs, c.namespace, "j") != nil {
			t.Error("the Job was done again in a new generation")
		}
		want(t, "the rest is applied", c.data("m"), map[string]string{"x": "2"})
		want(t, "the work is complete", condition(status, "Complete"), "True ConditionRulesAggregated")
		want(t, "the transition of Complete stands, for a TTL runs from there",
			meta.FindStatusCondition(status.Conditions, "Complete").LastTransitionTime.Unix(),
			meta.FindStatusCondition(before.Conditions, "Complete").LastTransitionTime.Unix())
		want(t, "generation", meta.FindStatusCondition(status.Conditions, workv1.WorkApplied).ObservedGeneration, w.work.Generation)

		// Without the rule it is a manifest as any other.
		w.work.Generation++
		w.work.Spec.ManifestConfigs = nil
		status = w.mustApply()
		if c.get(jobs, c.namespace, "j") == nil {
			t.Error("the Job is not there although no rule says that it is complete")
		}
		want(t, "the condition goes with the rule", condition(status, "Complete"), "none")
	})

	t.Run("a rule may not confirm a deletion", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("m", nil), c.configMap("n", nil))
		w.asks(rule(expression("Deleted", "true")), "", "configmaps", "m")
		status := w.mustApply()
		want(t, "manifest", manifestCondition(status, 0, workv1.ManifestApplied), manifestFailed)
		want(t, "condition", condition(status, "Deleted"), "none")
		want(t, "the other manifest", manifestCondition(status, 1, workv1.ManifestApplied), manifestApplied)
	})
}

func TestConformanceStatus(t *testing.T) {
	t.Run("work Progressing and Degraded", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.workload("d"), c.configMap("m", nil))
		ready := func(status workv1.ManifestWorkStatus) []string {
			return []string{
				manifestCondition(status, 0, observe.ConditionReady), manifestCondition(status, 1, observe.ConditionReady),
				condition(status, workv1.WorkProgressing), condition(status, workv1.WorkDegraded),
			}
		}
		want(t, "at first", ready(w.mustApply()), []string{"False InProgress", "True Current", "True Applying", "False NoResourceFailed"})
		c.setStatus(deployments, "d", deploymentReady)
		status := w.mustApply()
		want(t, "when it is ready", ready(status), []string{"True Current", "True Current", "False Completed", "False NoResourceFailed"})
		want(t, "generation", meta.FindStatusCondition(status.Conditions, workv1.WorkProgressing).ObservedGeneration, w.work.Generation)
		c.setStatus(deployments, "d", deploymentStuck)
		want(t, "when it is stuck", ready(w.mustApply()), []string{"False Failed", "True Current", "True Failed", "True ResourcesFailed"})
	})

	t.Run("work Progressing while a manifest is not applied", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("m", nil), map[string]any{"apiVersion": "v1", "kind": "ConfigMap"})
		status := w.mustApply()
		want(t, "Progressing", condition(status, workv1.WorkProgressing), "True Applying")
	})

	t.Run("manifest Available, work Available", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
		w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
		c.create(configMaps, c.configMap("a", nil))
		status := w.mustApply()
		want(t, "one that exists", manifestCondition(status, 0, workv1.ManifestAvailable), "True ResourceAvailable")
		want(t, "one that does not", manifestCondition(status, 1, workv1.ManifestAvailable), "False ResourceNotAvailable")
		want(t, "its readiness", manifestCondition(status, 1, observe.ConditionReady), "False NotFound")
		want(t, "the work", condition(status, workv1.WorkAvailable), "False ResourcesNotAvailable")
		c.create(configMaps, c.configMap("b", nil))
		want(t, "the work", condition(w.observe(), workv1.WorkAvailable), "True ResourcesAvailable")
	})

	t.Run("manifest Applied", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil))
		w.mustApply()
		w.age(time.Hour)
		applied := func(status workv1.ManifestWorkStatus) *metav1.Condition {
			return meta.FindStatusCondition(status.ResourceStatus.Manifests[0].Conditions, workv1.ManifestApplied)
		}
		same := applied(w.mustApply())
		if time.Since(same.LastTransitionTime.Time) < 50*time.Minute {
			t.Error("the transition moved without a change")
		}
		w.set(c.configMap("a", map[string]string{"x": "1"}))
		next := applied(w.mustApply())
		want(t, "generation", next.ObservedGeneration, w.work.Generation)
		if time.Since(next.LastTransitionTime.Time) > 50*time.Minute {
			t.Error("the transition did not move with the generation")
		}
	})

	t.Run("per-manifest meta", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.workload("d"))
		w.asks(jsonPaths("X", ".data.x"), "", "configmaps", "a")
		status := w.mustApply()
		want(t, "meta", status.ResourceStatus.Manifests[1].ResourceMeta, workv1.ManifestResourceMeta{
			Ordinal: 1, Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments", Namespace: c.namespace, Name: "d",
		})
		w.age(time.Hour)
		w.set(c.workload("d"), c.configMap("a", map[string]string{"x": "1"}))
		status = w.mustApply()
		moved := status.ResourceStatus.Manifests[1]
		want(t, "what moved is the same", feedback(status, 1), []string{"X=1"})
		if at := meta.FindStatusCondition(moved.Conditions, observe.ConditionFeedback).LastTransitionTime; time.Since(at.Time) < 50*time.Minute {
			t.Error("the feedback of a manifest that only moved counts as new")
		}
	})
}
