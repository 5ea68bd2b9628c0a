package apply_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

var (
	policies        = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}
	policyBindings  = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}
	secretConfigs   = workv1.ResourceIdentifier{Resource: "secrets", Namespace: "*", Name: "*"}
	secretCondition = workv1.ConditionRule{
		Type: workv1.CelConditionExpressionsType, Condition: "Told",
		CelExpressions: []string{"true"}, MessageExpression: "object.data.k",
	}
)

// deny has the API server refuse secrets of a name, with a message that quotes
// what is in them.
func (c *cluster) deny(name string) {
	c.Helper()
	policy := "quotes-" + c.namespace
	put := func(r schema.GroupVersionResource, kind string, spec map[string]any) {
		c.Helper()
		_, err := c.of(r, "").Create(c.ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": policy}, "spec": spec,
		}}, metav1.CreateOptions{})
		if err != nil {
			c.Fatal(err)
		}
		c.Cleanup(func() {
			if err := c.of(r, "").Delete(context.Background(), policy, metav1.DeleteOptions{}); err != nil {
				c.Errorf("delete %s: %v", policy, err)
			}
		})
	}
	put(policies, "ValidatingAdmissionPolicy", map[string]any{
		"failurePolicy": "Fail",
		"matchConstraints": map[string]any{"resourceRules": []any{map[string]any{
			"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"CREATE", "UPDATE"}, "resources": []any{"secrets"},
		}}},
		"matchConditions": []any{map[string]any{
			"name": "one", "expression": fmt.Sprintf("object.metadata.namespace == %q && object.metadata.name == %q", c.namespace, name),
		}},
		"validations": []any{map[string]any{"expression": "false", "messageExpression": "'no: ' + string(object.data.k)"}},
	})
	put(policyBindings, "ValidatingAdmissionPolicyBinding", map[string]any{"policyName": policy, "validationActions": []any{"Deny"}})
	c.until("the policy is in force", func() bool {
		_, err := c.of(secrets, c.namespace).Create(c.ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": c.namespace},
			"data": map[string]any{"k": "eA=="},
		}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsInvalid(err)
	})
}

// TestSecretsStayWhereTheyBelong: of what is in secrets nothing gets into
// reports, errors, the log, metrics or the AppliedManifestWork, whatever becomes
// of them.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	const marker = "Ma12rker+Ma12rker/x"
	hidden := base64.StdEncoding.EncodeToString([]byte(marker))
	c, log, registry := newCluster(t), &lines{}, prometheus.NewRegistry()
	c.restart(apply.Options{Log: log.logger(), Registerer: registry})
	c.run()
	secret := func(name string, fields map[string]any) map[string]any {
		m := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": c.namespace}}
		maps.Copy(m, fields)
		return m
	}
	c.deny("denied")
	forbidden := func(what, text string) {
		t.Helper()
		for _, s := range []string{marker, hidden} {
			if strings.Contains(text, s) {
				t.Errorf("%s tells what is in a secret: %s", what, text)
			}
		}
	}
	try := func(w *story) {
		t.Helper()
		status, err := w.apply()
		if err != nil {
			forbidden("the error", err.Error())
		}
		raw, err := json.Marshal(status)
		if err != nil {
			t.Fatal(err)
		}
		forbidden("the status", string(raw))
		if a := w.appliedWork(); a != nil {
			raw, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			forbidden("the AppliedManifestWork", string(raw))
		}
	}
	feedback := workv1.ManifestConfigOption{
		ResourceIdentifier: secretConfigs,
		FeedbackRules: []workv1.FeedbackRule{{Type: workv1.JSONPathsType, JsonPaths: []workv1.JsonPath{
			{Name: "all", Path: ".data"}, {Name: "one", Path: ".data.k"}, {Name: "nested", Path: ".metadata.annotations"},
		}}},
		ConditionRules: []workv1.ConditionRule{secretCondition},
	}

	fine := c.newWork("fine", secret("fine", map[string]any{"immutable": true, "data": map[string]any{"k": hidden}}))
	fine.work.Spec.ManifestConfigs = []workv1.ManifestConfigOption{feedback}
	try(fine)
	if c.get(secrets, c.namespace, "fine") == nil {
		t.Fatal("the secret was not applied")
	}
	fine.set(secret("fine", map[string]any{"immutable": true, "stringData": map[string]any{"k": marker + "2"}}))
	try(fine)
	rival := c.newWork("rival", secret("fine", map[string]any{"stringData": map[string]any{"k": marker}}))
	try(rival)
	try(fine)

	denied := c.newWork("denied", secret("denied", map[string]any{"stringData": map[string]any{"k": marker}}))
	try(denied)
	if got := manifestCondition(denied.observe(), 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("Applied = %s of a secret that admission denies", got)
	}

	_, err := c.of(secrets, c.namespace).Create(c.ctx, &unstructured.Unstructured{
		Object: secret("theirs", map[string]any{"data": map[string]any{"k": "eA=="}}),
	}, metav1.CreateOptions{FieldManager: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	conflict := c.newWork("conflict", secret("theirs", map[string]any{"data": map[string]any{"k": hidden}}))
	conflict.strategy(serverSide(workv1.ServerSideApplyConfig{}), "", "secrets")
	conflict.work.Spec.ManifestConfigs = append(conflict.work.Spec.ManifestConfigs, feedback)
	status, err := conflict.apply()
	if err != nil {
		t.Fatal(err)
	}
	if got := manifestMessage(status, 0); strings.Contains(got, hidden) || !strings.Contains(got, ".data.k") {
		t.Errorf("message %q, want the field and not its value", got)
	}

	for i, manifest := range []any{
		secret("type", map[string]any{"type": "kubernetes.io/tls", "stringData": map[string]any{"tls.crt": marker}}),
		secret("number", map[string]any{"data": map[string]any{"k": []any{marker}}}),
		secret("text", map[string]any{"data": marker}),
		secret("list", map[string]any{"stringData": []any{marker}}),
		secret("Label", map[string]any{"stringData": map[string]any{"k": marker}, "unknown": marker}),
		map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{secret("in", map[string]any{"stringData": map[string]any{"k": marker}})}},
		map[string]any{"apiVersion": "v1", "kind": "SecretList", "items": []any{secret("in", map[string]any{"data": map[string]any{"k": hidden}})}},
		map[string]any{"apiVersion": "v1", "kind": "Sekret", "metadata": map[string]any{"name": "s", "namespace": c.namespace}, "data": map[string]any{"k": hidden}},
	} {
		w := c.newWork(fmt.Sprint("w", i), manifest)
		try(w)
		if got := manifestCondition(w.told(w.last), 0, workv1.ManifestApplied); got != manifestFailed {
			t.Errorf("manifest %d: Applied = %s", i, got)
		}
	}

	for _, w := range []*story{fine, rival, conflict} {
		if _, err := w.delete(); err != nil {
			forbidden("the deletion", err.Error())
		}
	}
	forbidden("the log", log.String())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		forbidden("a metric", f.String())
	}
}
