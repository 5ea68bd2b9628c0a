package apply_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

var (
	networkPolicies = schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
	budgets         = schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}
)

func (c *cluster) object(apiVersion, kind, name, spec string) map[string]any {
	c.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(spec), &fields); err != nil {
		c.Fatal(err)
	}
	return map[string]any{
		"apiVersion": apiVersion, "kind": kind,
		"metadata": map[string]any{"name": name, "namespace": c.namespace}, "spec": fields,
	}
}

// What the manifest does not open stays closed, also for an agent that does not
// know what it wrote before.
func TestPoliciesAreExact(t *testing.T) {
	for _, tt := range []struct {
		reason     string
		resource   schema.GroupVersionResource
		apiVersion string
		kind       string
		spec       string
		change     string
	}{
		{
			"a rule in a policy that denies all", networkPolicies, "networking.k8s.io/v1", "NetworkPolicy",
			`{"podSelector":{},"policyTypes":["Ingress"]}`, `{"spec":{"ingress":[{}]}}`,
		},
		{
			"a selector of everything for another", networkPolicies, "networking.k8s.io/v1", "NetworkPolicy",
			`{"podSelector":{},"ingress":[{"from":[{"podSelector":{}}],"ports":[{"port":80}]}]}`,
			`{"spec":{"ingress":[{"from":[{"namespaceSelector":{}}],"ports":[{"port":80,"protocol":"TCP"}]}]}}`,
		},
		{
			"a policy type dropped", networkPolicies, "networking.k8s.io/v1", "NetworkPolicy",
			`{"podSelector":{},"egress":[{}]}`, `{"spec":{"policyTypes":["Egress"]}}`,
		},
		{
			"a label more to be protected", budgets, "policy/v1", "PodDisruptionBudget",
			`{"minAvailable":1,"selector":{"matchLabels":{"app":"a"}}}`,
			`{"spec":{"selector":{"matchLabels":{"more":"specific"}}}}`,
		},
		{
			"a field that the manifest does not have", budgets, "policy/v1", "PodDisruptionBudget",
			`{"minAvailable":1,"selector":{}}`, `{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}`,
		},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			w := c.newWork("web", c.object(tt.apiVersion, tt.kind, "x", tt.spec))
			w.mustApply()
			spec := func() any { return c.get(tt.resource, c.namespace, "x").Object["spec"] }
			was := spec()
			c.restart(apply.Options{})
			w.mustApply()
			if got := c.wire.writes(); len(got) > 0 {
				t.Errorf("wrote %v over what is as it should be", got)
			}
			c.restart(apply.Options{})
			c.patch(tt.resource, c.namespace, "x", tt.change)
			w.mustApply()
			if diff := cmp.Diff(was, spec()); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdatePutsBackContent(t *testing.T) {
	const container = `{"name":"main","image":"example.com/x:1"`
	for _, tt := range []struct {
		reason string
		change string
	}{
		{"a zero of the manifest removed", `{"spec":{"template":{"spec":{"automountServiceAccountToken":null}}}}`},
		{"a zero in a list removed", `{"spec":{"template":{"spec":{"containers":[` + container + `,"securityContext":{"runAsUser":0}}]}}}}`},
		{"a zero of two kinds removed", `{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":null}}}}`},
		{"a field added", `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`},
		{"a field added in a list", `{"spec":{"template":{"spec":{"containers":[` + container +
			`,"stdin":true,"securityContext":{"allowPrivilegeEscalation":false,"runAsUser":0}}]}}}}`},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			// The server stores none of paused and hostPID, which are false, and
			// all of the other zeros.
			w := c.newWork("web", c.object("apps/v1", "Deployment", "d", `{"paused":false,"replicas":0,
				"strategy":{"rollingUpdate":{"maxUnavailable":0}},
				"selector":{"matchLabels":{"app":"d"}},"template":{"metadata":{"labels":{"app":"d"}},"spec":{
				"automountServiceAccountToken":false,"hostPID":false,
				"containers":[`+container+`,"securityContext":{"allowPrivilegeEscalation":false,"runAsUser":0}}]}}}`))
			w.mustApply()
			spec := func() any { return c.get(deployments, c.namespace, "d").Object["spec"] }
			was := spec()
			c.patch(deployments, c.namespace, "d", tt.change)
			w.mustApply()
			if diff := cmp.Diff(was, spec()); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			c.wire.requests()
			w.mustApply()
			if got := c.wire.writes(); len(got) > 0 {
				t.Errorf("wrote %v, though nothing changed", got)
			}
		})
	}
}

// A zero that is gone when the agent comes up is put back, and one that the
// server never stores costs one write.
func TestZerosAfterARestart(t *testing.T) {
	c := newCluster(t)
	d := c.deployment("d", 1)
	pod := d["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	pod["automountServiceAccountToken"], pod["hostPID"] = false, false
	w := c.newWork("web", d)
	w.mustApply()
	c.patch(deployments, c.namespace, "d", `{"spec":{"template":{"spec":{"automountServiceAccountToken":null}}}}`)
	c.restart(apply.Options{})
	w.mustApply()
	live := c.get(deployments, c.namespace, "d")
	if _, ok, _ := unstructured.NestedBool(live.Object, "spec", "template", "spec", "automountServiceAccountToken"); !ok {
		t.Error("automountServiceAccountToken was not put back")
	}
	c.restart(apply.Options{})
	for range 3 {
		w.mustApply()
	}
	if got := c.wire.writes(); len(got) != 1 {
		t.Errorf("wrote %v, want once", got)
	}
}

// Somebody who insists on a field gets it, as long as what the manifest says
// holds: two who insist would write for ever.
func TestNobodyFightsForEver(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.deployment("d", 1))
	w.mustApply()
	hostNetwork := func() bool {
		on, _, _ := unstructured.NestedBool(c.get(deployments, c.namespace, "d").Object, "spec", "template", "spec", "hostNetwork")
		return on
	}
	const add = `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`
	c.patch(deployments, c.namespace, "d", add)
	w.mustApply()
	if hostNetwork() {
		t.Error("the added field stayed")
	}
	c.wire.requests()
	for range 3 {
		c.patch(deployments, c.namespace, "d", add)
		w.mustApply()
	}
	if got := c.wire.writes(); len(got) > 0 || !hostNetwork() {
		t.Errorf("wrote %v against a change that came back", got)
	}
	c.patch(deployments, c.namespace, "d", `{"spec":{"replicas":3}}`)
	w.mustApply()
	if got, _, _ := unstructured.NestedInt64(c.get(deployments, c.namespace, "d").Object, "spec", "replicas"); got != 1 {
		t.Errorf("replicas = %d, want what the manifest says", got)
	}
}

// Replicas that the manifest does not have are an autoscaler's.
func TestScalingIsLeftAlone(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.deployment("d", 0))
	w.mustApply()
	c.patch(deployments, c.namespace, "d", `{"spec":{"replicas":3}}`)
	w.mustApply()
	if got, _, _ := unstructured.NestedInt64(c.get(deployments, c.namespace, "d").Object, "spec", "replicas"); got != 3 {
		t.Errorf("replicas = %d, want 3", got)
	}
}
