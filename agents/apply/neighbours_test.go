package apply_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

var autoscalers = schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}

// scale is what an autoscaler does: an update of the scale subresource.
func (c *cluster) scale(manager string, replicas int64) {
	c.Helper()
	scale, err := c.of(deployments, c.namespace).Get(c.ctx, "d", metav1.GetOptions{}, "scale")
	if err != nil {
		c.Fatal(err)
	}
	if err := unstructured.SetNestedField(scale.Object, replicas, "spec", "replicas"); err != nil {
		c.Fatal(err)
	}
	if _, err := c.of(deployments, c.namespace).Update(c.ctx, scale, metav1.UpdateOptions{FieldManager: manager}, "scale"); err != nil {
		c.Fatalf("scale: %v", err)
	}
}

func (c *cluster) replicas() int64 {
	c.Helper()
	n, _, _ := unstructured.NestedInt64(c.get(deployments, c.namespace, "d").Object, "spec", "replicas")
	return n
}

// autoscaler makes a HorizontalPodAutoscaler for the deployment.
func (c *cluster) autoscaler() {
	c.Helper()
	hpa := c.object("autoscaling/v2", "HorizontalPodAutoscaler", "scaler", `{"minReplicas":1,"maxReplicas":9,
		"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}`)
	if _, err := c.of(autoscalers, c.namespace).Create(c.ctx, &unstructured.Unstructured{Object: hpa}, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

// serverSideBy applies a patch as another field manager.
func (c *cluster) serverSideBy(manager string, r schema.GroupVersionResource, name, object string, force bool) {
	c.Helper()
	_, err := c.of(r, c.namespace).Patch(c.ctx, name, types.ApplyPatchType, []byte(object),
		metav1.PatchOptions{FieldManager: manager, Force: &force})
	if err != nil {
		c.Fatalf("apply as %s: %v", manager, err)
	}
}

func ignoring(fields ...workv1.IgnoreField) workv1.UpdateStrategy {
	return serverSide(workv1.ServerSideApplyConfig{IgnoreFields: fields})
}

// appliedOf returns the Applied condition of the first manifest.
func appliedOf(status workv1.ManifestWorkStatus) *metav1.Condition {
	return meta.FindStatusCondition(status.ResourceStatus.Manifests[0].Conditions, workv1.ManifestApplied)
}

const scaledElsewhere = "kube-controller-manager"

// However often others write an object, we write over it twice at most, and say
// what is the matter.
func TestLivesWithOthers(t *testing.T) {
	replicasPointer := workv1.IgnoreField{JSONPointers: []string{"/spec/replicas"}}
	onChange := workv1.IgnoreField{Condition: workv1.IgnoreFieldsConditionOnSpokeChange, JSONPaths: []string{".spec.replicas"}}
	insist := func(c *cluster, i int) {
		c.patch(deployments, c.namespace, "d", `{"spec":{"minReadySeconds":`+[]string{"11", "12", "13"}[i%3]+`}}`)
	}
	autoscale := func(c *cluster, i int) { c.scale(scaledElsewhere, int64(4+i%3)) }
	for _, tt := range []struct {
		reason   string
		strategy *workv1.UpdateStrategy
		before   func(*cluster) // After the first apply.
		change   func(c *cluster, i int)
		writes   int // At most.
		applied  string
		says     []string
	}{
		{
			"an autoscaler and Update", nil, (*cluster).autoscaler, autoscale, 0,
			manifestApplied,
			[]string{`"HorizontalPodAutoscaler" of`, ".spec.replicas"},
		},
		{
			"an autoscaler that is not one of Kubernetes and Update", nil, nil, func(c *cluster, i int) { c.scale("keda", int64(4+i%3)) }, 2,
			manifestApplied,
			[]string{`"keda"`, ".spec.replicas"},
		},
		{
			"another manager that insists and Update", nil, nil, insist, 2,
			manifestFailed,
			[]string{`"kubectl" of .spec.minReadySeconds`},
		},
		{
			"a manager that adds another field each time and Update", nil, nil, func(c *cluster, i int) {
				c.patch(deployments, c.namespace, "d", `{"spec":{"progressDeadlineSeconds":`+[]string{"101", "102", "103", "104", "105", "106", "107", "108"}[i%8]+`}}`)
			}, 2, manifestApplied, nil,
		},
		{
			"a label that another insists on and Update", nil, nil, func(c *cluster, i int) {
				c.patch(deployments, c.namespace, "d", `{"metadata":{"labels":{"tier":"`+[]string{"x", "y"}[i%2]+`"}}}`)
			}, 2, manifestFailed, []string{`"kubectl" of .metadata.labels.tier`},
		},
		{
			"one that removes a field each time and Update", nil, nil, func(c *cluster, i int) {
				c.patch(deployments, c.namespace, "d", `{"metadata":{"labels":{"tier":null,"seen":"`+[]string{"x", "y"}[i%2]+`"}}}`)
			}, 2, manifestFailed, []string{"somebody of .metadata.labels.tier"},
		},
		{
			"an autoscaler and server-side apply", new(serverSide(workv1.ServerSideApplyConfig{})), nil, autoscale, 1,
			manifestFailed,
			[]string{scaledElsewhere, ".spec.replicas", "conflict"},
		},
		{
			"an autoscaler and server-side apply by force", new(serverSide(workv1.ServerSideApplyConfig{Force: true})), nil, autoscale, 2,
			manifestApplied,
			[]string{scaledElsewhere, ".spec.replicas"},
		},
		{
			"another manager that insists and server-side apply by force", new(serverSide(workv1.ServerSideApplyConfig{Force: true})), nil, insist, 2,
			manifestFailed,
			[]string{`"kubectl" of .spec.minReadySeconds`},
		},
		{
			"an autoscaler and replicas that are ignored", new(ignoring(replicasPointer)), nil, autoscale, 0,
			manifestApplied, nil,
		},
		{
			"an autoscaler and replicas that are ignored, by force",
			new(serverSide(workv1.ServerSideApplyConfig{Force: true, IgnoreFields: []workv1.IgnoreField{replicasPointer}})), nil, autoscale, 0,
			manifestApplied, nil,
		},
		{
			"an autoscaler and replicas that are ignored once changed", new(ignoring(onChange)), nil, autoscale, 0,
			manifestApplied, nil,
		},
		{
			"an autoscaler and CreateOnly", &workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeCreateOnly}, nil, autoscale, 0,
			manifestApplied, nil,
		},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			d := c.deployment("d", 2)
			d["metadata"].(map[string]any)["labels"] = map[string]any{"tier": "front"}
			d["spec"].(map[string]any)["minReadySeconds"] = 7
			w := c.newWork("web", d)
			if tt.strategy != nil {
				w.strategy(*tt.strategy, "apps", "deployments")
			}
			w.mustApply()
			if tt.before != nil {
				tt.before(c)
			}
			c.wire.requests()
			var status workv1.ManifestWorkStatus
			for i := range 12 {
				tt.change(c, i)
				status = w.mustApply()
			}
			if got := c.wire.writes(); len(got) > tt.writes {
				t.Errorf("wrote %v, want at most %d", got, tt.writes)
			}
			if got := manifestCondition(status, 0, workv1.ManifestApplied); got != tt.applied {
				t.Errorf("Applied = %s, want %s", got, tt.applied)
			}
			message := manifestMessage(status, 0)
			for _, part := range tt.says {
				if !strings.Contains(message, part) {
					t.Errorf("message %q does not say %s", message, part)
				}
			}
			if len(tt.says) == 0 && message != "The manifest is applied" {
				t.Errorf("message = %q", message)
			}
			// The same is said, and nothing written, however often the other writes.
			before := appliedOf(status)
			tt.change(c, 12)
			if diff := cmp.Diff(before, appliedOf(w.mustApply())); diff != "" {
				t.Errorf("the condition went on changing (-want +got):\n%s", diff)
			}
			if got := c.wire.writes(); len(got) > 0 {
				t.Errorf("wrote %v", got)
			}
		})
	}
}

// Beside a field that is left to another, drift is put back as ever, and a new
// manifest begins anew.
func TestOtherDriftIsStillPutBack(t *testing.T) {
	for _, tt := range []struct {
		reason   string
		strategy *workv1.UpdateStrategy
	}{
		{"Update", nil},
		{"server-side apply by force", new(serverSide(workv1.ServerSideApplyConfig{Force: true}))},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			d := c.deployment("d", 2)
			d["spec"].(map[string]any)["minReadySeconds"] = 7
			w := c.newWork("web", d)
			if tt.strategy != nil {
				w.strategy(*tt.strategy, "apps", "deployments")
			}
			w.mustApply()
			for i := range 5 {
				c.scale("keda", int64(4+i))
				w.mustApply()
			}
			if got := c.replicas(); got != 8 {
				t.Errorf("replicas = %d, want those of the other", got)
			}
			c.patch(deployments, c.namespace, "d", `{"spec":{"minReadySeconds":9}}`)
			w.mustApply()
			live := c.get(deployments, c.namespace, "d")
			if got, _, _ := unstructured.NestedInt64(live.Object, "spec", "minReadySeconds"); got != 7 || c.replicas() != 8 {
				t.Errorf("minReadySeconds = %d, replicas = %d, want 7 and 8", got, c.replicas())
			}

			d["spec"].(map[string]any)["replicas"] = 3
			w.set(d)
			w.mustApply()
			if got := c.replicas(); got != 3 {
				t.Errorf("replicas = %d, want those of the new manifest", got)
			}
		})
	}
}

// An agent that comes up does not undo what an autoscaler did meanwhile.
func TestAutoscalerOverARestart(t *testing.T) {
	c := newCluster(t)
	c.autoscaler()
	w := c.newWork("web", c.deployment("d", 2))
	w.mustApply()
	c.scale(scaledElsewhere, 6)
	c.restart(apply.Options{})
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 || c.replicas() != 6 {
		t.Errorf("wrote %v, replicas = %d", got, c.replicas())
	}
	// Nor does a new manifest.
	d := c.deployment("d", 2)
	d["spec"].(map[string]any)["minReadySeconds"] = 7
	w.set(d)
	w.mustApply()
	if got := c.replicas(); got != 6 {
		t.Errorf("replicas = %d after the manifest changed elsewhere", got)
	}
}

// A conflict is tried again when the one who has the field lets go of it, and on
// every Recheck; not whenever the object changes.
func TestConflictIsTriedAgainWhenItMayBeOver(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "ours"}))
	w.strategy(serverSide(workv1.ServerSideApplyConfig{}), "", "configmaps")
	c.serverSideBy("helm", configMaps, "a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"theirs"}}`, false)
	status := w.mustApply()
	if got := manifestMessage(status, 0); !strings.Contains(got, `"helm"`) || !strings.Contains(got, ".data.x") {
		t.Errorf("message = %q", got)
	}
	c.wire.requests()
	for _, v := range []string{"1", "2", "3"} {
		c.patch(configMaps, c.namespace, "a", `{"data":{"y":"`+v+`"}}`)
		status = w.mustApply()
	}
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("sent %v while nothing about the conflict changed", got)
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("Applied = %s", got)
	}
	c.serverSideBy("helm", configMaps, "a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"z":"theirs"}}`, false)
	w.mustApply()
	if got := c.data("a")["x"]; got != "ours" {
		t.Errorf("x = %q once helm let go", got)
	}
}

// What the agent wrote by updates is no other manager's when the strategy changes.
func TestFromUpdateToServerSideApply(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1", "y": "1"}))
	w.mustApply()
	w.set(c.configMap("a", map[string]string{"x": "2"}))
	w.strategy(serverSide(workv1.ServerSideApplyConfig{}), "", "configmaps")
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "2"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	var managers []string
	for _, f := range c.get(configMaps, c.namespace, "a").GetManagedFields() {
		managers = append(managers, f.Manager+" "+string(f.Operation))
	}
	if diff := cmp.Diff([]string{"work-agent Apply"}, managers); diff != "" {
		t.Errorf("field managers (-want +got):\n%s", diff)
	}
	c.restart(apply.Options{})
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		t.Errorf("wrote %v over what is as it should be", got)
	}
}
