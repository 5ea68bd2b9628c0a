package apply_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/agents/observe"
)

var jobs = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}

func podSpec() map[string]any {
	return map[string]any{"restartPolicy": "Never", "containers": []any{map[string]any{"name": "c", "image": "example.com/c:1"}}}
}

func (c *cluster) workload(name string) map[string]any {
	labels := map[string]any{"app": name}
	spec := podSpec()
	spec["restartPolicy"] = "Always"
	return map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name, "namespace": c.namespace},
		"spec": map[string]any{
			"replicas": 2, "selector": map[string]any{"matchLabels": labels},
			"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": spec},
		},
	}
}

func (c *cluster) job(name string) map[string]any {
	return map[string]any{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": name, "namespace": c.namespace},
		"spec": map[string]any{"template": map[string]any{"spec": podSpec()}},
	}
}

// setStatus does what a controller would.
func (c *cluster) setStatus(r schema.GroupVersionResource, name, status string) {
	c.Helper()
	_, err := c.of(r, c.namespace).Patch(c.ctx, name, types.MergePatchType, []byte(`{"status":`+status+`}`), metav1.PatchOptions{}, "status")
	if err != nil {
		c.Fatalf("set the status of %s %s: %v", r.Resource, name, err)
	}
}

const (
	deploymentReady = `{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2,
		"conditions":[{"type":"Available","status":"True","reason":"MinimumReplicasAvailable"},{"type":"Progressing","status":"True","reason":"NewReplicaSetAvailable"}]}`
	deploymentStuck = `{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"readyReplicas":0,"availableReplicas":0,"unavailableReplicas":2,
		"conditions":[{"type":"Progressing","status":"False","reason":"ProgressDeadlineExceeded","message":"too slow"}]}`
	jobDone = `{"startTime":"2026-01-01T00:00:00Z","completionTime":"2026-01-01T00:01:00Z","succeeded":1,"uncountedTerminatedPods":{},
		"conditions":[{"type":"SuccessCriteriaMet","status":"True","lastTransitionTime":"2026-01-01T00:01:00Z"},
		{"type":"Complete","status":"True","lastTransitionTime":"2026-01-01T00:01:00Z"}]}`
)

// asks adds an entry to the manifestConfigs.
func (s *story) asks(o workv1.ManifestConfigOption, group, resource, name string) {
	o.ResourceIdentifier = workv1.ResourceIdentifier{Group: group, Resource: resource, Namespace: s.namespace, Name: name}
	s.work.Spec.ManifestConfigs = append(s.work.Spec.ManifestConfigs, o)
}

func wellKnownStatus() workv1.ManifestConfigOption {
	return workv1.ManifestConfigOption{FeedbackRules: []workv1.FeedbackRule{{Type: workv1.WellKnownStatusType}}}
}

func jsonPaths(pairs ...string) workv1.ManifestConfigOption {
	rule := workv1.FeedbackRule{Type: workv1.JSONPathsType}
	for i := 0; i < len(pairs); i += 2 {
		rule.JsonPaths = append(rule.JsonPaths, workv1.JsonPath{Name: pairs[i], Path: pairs[i+1]})
	}
	return workv1.ManifestConfigOption{FeedbackRules: []workv1.FeedbackRule{rule}}
}

// feedback writes the values of a manifest down as name=value.
func feedback(status workv1.ManifestWorkStatus, ordinal int) []string {
	var out []string
	for _, v := range status.ResourceStatus.Manifests[ordinal].StatusFeedbacks.Values {
		switch v.Value.Type {
		case workv1.Integer:
			out = append(out, fmt.Sprintf("%s=%d", v.Name, *v.Value.Integer))
		case workv1.Boolean:
			out = append(out, fmt.Sprintf("%s=%t", v.Name, *v.Value.Boolean))
		case workv1.String:
			out = append(out, v.Name+"="+*v.Value.String)
		case workv1.JsonRaw:
			out = append(out, v.Name+"=raw "+*v.Value.JsonRaw)
		}
	}
	return out
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const (
	feedbackSynced  = "True StatusFeedbackSynced"
	feedbackUnasked = "True NoStatusFeedbackSynced"
	feedbackFailed  = "False StatusFeedbackSyncFailed"
)

func TestConformanceFeedback(t *testing.T) {
	t.Run("feedbackRules type WellKnownStatus", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.workload("d"), c.job("j"), c.configMap("m", nil))
		w.asks(wellKnownStatus(), "apps", "deployments", "d")
		w.asks(wellKnownStatus(), "batch", "jobs", "j")
		w.asks(wellKnownStatus(), "", "configmaps", "m")
		w.mustApply()
		c.setStatus(deployments, "d", deploymentReady)
		c.setStatus(jobs, "j", jobDone)
		status := w.mustApply()
		want(t, "Deployment", feedback(status, 0), []string{"ReadyReplicas=2", "Replicas=2", "AvailableReplicas=2"})
		want(t, "Job", feedback(status, 1), []string{"JobComplete=True", "JobSucceeded=1"})
		want(t, "ConfigMap", feedback(status, 2), []string(nil))
		want(t, "Deployment", manifestCondition(status, 0, observe.ConditionFeedback), feedbackSynced)
		want(t, "ConfigMap", manifestCondition(status, 2, observe.ConditionFeedback), feedbackFailed)
	})

	t.Run("feedbackRules type JSONPaths", func(t *testing.T) {
		c := newCluster(t)
		rules := jsonPaths("Replicas", ".spec.replicas", "Image", ".spec.template.spec.containers[*].image",
			"Absent", ".status.nothing", "Labels", ".spec.selector")
		w := c.newWork("web", c.workload("d"))
		w.asks(rules, "apps", "deployments", "d")
		status := w.mustApply()
		want(t, "values", feedback(status, 0), []string{"Replicas=2", "Image=example.com/c:1"})
		want(t, "beside one that is no scalar", manifestCondition(status, 0, observe.ConditionFeedback), feedbackFailed)

		c.restart(apply.Options{Observe: observe.Options{RawJSON: true}})
		status = w.mustApply()
		want(t, "raw", feedback(status, 0), []string{"Replicas=2", "Image=example.com/c:1", `Labels=raw {"matchLabels":{"app":"d"}}`})
		want(t, "raw", manifestCondition(status, 0, observe.ConditionFeedback), feedbackSynced)
	})

	t.Run("feedbackScrapeType", func(t *testing.T) {
		for _, how := range []workv1.FeedbackScrapeType{workv1.FeedbackPollType, workv1.FeedbackWatchType} {
			c := newCluster(t)
			c.run()
			w := c.newWork("web", c.workload("d"))
			rules := wellKnownStatus()
			rules.FeedbackScrapeType = how
			w.asks(rules, "apps", "deployments", "d")
			w.mustApply()
			c.until("the watch vouches for the object", func() bool {
				c.wire.requests()
				w.mustApply()
				return len(c.wire.requests()) == 0
			})
			w.observe()
			want(t, string(how)+": requests while nothing changes", len(c.wire.requests()), 0)

			c.setStatus(deployments, "d", deploymentReady)
			c.untilTold("web-id")
			status := w.mustApply()
			want(t, string(how)+": what a change of the status costs", c.wire.requests(),
				[]string{"GET /apis/apps/v1/namespaces/" + c.namespace + "/deployments/d"})
			want(t, string(how)+": values", feedback(status, 0), []string{"ReadyReplicas=2", "Replicas=2", "AvailableReplicas=2"})
		}
	})

	t.Run("Poll interval", func(t *testing.T) {
		c := newCluster(t)
		c.restart(apply.Options{MaxWatches: 1})
		c.run()
		w := c.newWork("web", c.configMap("m", nil), c.workload("d"))
		rules := wellKnownStatus()
		rules.FeedbackScrapeType = workv1.FeedbackWatchType
		w.asks(rules, "apps", "deployments", "d")
		w.mustApply()
		c.setStatus(deployments, "d", deploymentReady)
		// The engine calls Observe once per --status-sync-interval.
		status := w.observe()
		want(t, "values of an object that is not watched", feedback(status, 1), []string{"ReadyReplicas=2", "Replicas=2", "AvailableReplicas=2"})
	})

	t.Run("manifestConfigs match", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("first", map[string]string{"x": "1"}), c.configMap("second", map[string]string{"x": "2"}))
		star := jsonPaths("X", ".data.x")
		w.asks(workv1.ManifestConfigOption{UpdateStrategy: &workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeCreateOnly}}, "", "configmaps", "*st")
		w.asks(star, "", "configmaps", "*")
		w.asks(jsonPaths("Never", ".data.x"), "", "configmaps", "first")
		w.asks(rule(workv1.ConditionRule{Condition: "Met", Type: "CEL", CelExpressions: []string{"object.data.x == '1'"}}), "", "configmaps", "f*s*")
		w.asks(jsonPaths("Group", ".data.x"), "apps", "configmaps", "*")
		status := w.mustApply()
		want(t, "first", feedback(status, 0), []string{"X=1"})
		want(t, "second", feedback(status, 1), []string{"X=2"})
		want(t, "first", manifestCondition(status, 0, "Met"), "True ConditionRuleEvaluated")
		want(t, "second", manifestCondition(status, 1, "Met"), "none")
		c.patch(configMaps, c.namespace, "first", `{"data":{"x":"9"}}`)
		status = w.mustApply()
		want(t, "the strategy comes from the first entry that has one", feedback(status, 0), []string{"X=9"})
	})

	t.Run("manifest StatusFeedbackSynced", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.configMap("b", nil))
		w.asks(jsonPaths("X", ".data.x"), "", "configmaps", "a")
		w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
		status := w.mustApply()
		want(t, "of an object that does not exist", manifestCondition(status, 0, observe.ConditionFeedback), feedbackFailed)
		want(t, "without rules", manifestCondition(status, 1, observe.ConditionFeedback), feedbackUnasked)
		c.create(configMaps, c.configMap("a", map[string]string{"x": "1"}))
		want(t, "once it exists", manifestCondition(w.mustApply(), 0, observe.ConditionFeedback), feedbackSynced)
	})

	t.Run("feedback values", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil))
		w.asks(jsonPaths("X", ".data.x"), "", "configmaps", "a")
		w.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
		c.create(configMaps, c.configMap("a", map[string]string{"x": "1"}))
		since := func(status workv1.ManifestWorkStatus) time.Time {
			return meta.FindStatusCondition(status.ResourceStatus.Manifests[0].Conditions, observe.ConditionFeedback).LastTransitionTime.Time
		}
		first := w.mustApply()
		want(t, "values", feedback(first, 0), []string{"X=1"})
		w.age(time.Hour)
		again := w.observe()
		if now := since(again); now.After(since(first).Add(-time.Minute)) {
			t.Errorf("the transition moved to %s although no value changed", now)
		}
		c.patch(configMaps, c.namespace, "a", `{"data":{"x":"2"}}`)
		changed := w.observe()
		want(t, "values", feedback(changed, 0), []string{"X=2"})
		if now := since(changed); now.Before(since(first)) {
			t.Errorf("the transition is still %s although a value changed", now)
		}
		c.wire.cut(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/configmaps/a") })
		report, err := w.applier.Observe(w.ctx, w.bundle(), w.last)
		if err == nil {
			t.Error("Observe without an API server returned no error")
		}
		want(t, "values of an object that cannot be read stand", feedback(w.told(report), 0), []string{"X=2"})
	})

	t.Run("Secrets tell nothing", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "namespace": c.namespace},
			"stringData": map[string]any{"password": "hunter2"},
		})
		w.asks(jsonPaths("Password", ".data.password"), "", "secrets", "s")
		status := w.mustApply()
		want(t, "values", feedback(status, 0), []string(nil))
		want(t, "condition", manifestCondition(status, 0, observe.ConditionFeedback), feedbackFailed)
	})
}

// A changed rule is held against the object with one call, and without any once
// the answer is known.
func TestChangedRules(t *testing.T) {
	c := newCluster(t)
	c.run()
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1", "y": "2"}))
	w.mustApply()
	w.work.Generation++
	w.asks(jsonPaths("X", ".data.x"), "", "configmaps", "a")
	want(t, "values", feedback(w.mustApply(), 0), []string{"X=1"})
	c.until("the watch vouches for the object", func() bool {
		c.wire.requests()
		w.mustApply()
		return len(c.wire.requests()) == 0
	})
	w.work.Generation++
	w.work.Spec.ManifestConfigs = nil
	w.asks(jsonPaths("Y", ".data.y"), "", "configmaps", "a")
	want(t, "values", feedback(w.mustApply(), 0), []string{"Y=2"})
	requests := slices.DeleteFunc(c.wire.requests(), func(r string) bool { return strings.Contains(r, "appliedmanifestworks") })
	want(t, "requests for a changed rule", requests, []string{"GET /api/v1/namespaces/" + c.namespace + "/configmaps/a"})
}
