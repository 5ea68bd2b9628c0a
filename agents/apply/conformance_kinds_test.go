package apply_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// A kindCase is the life of one object under the default strategy. NAME and
// NAMESPACE stand for names of the test's own.
type kindCase struct {
	reason   string
	resource schema.GroupVersionResource
	manifest string
	// local is what somebody on the cluster does to the object; nothing if empty.
	local string
	// next is the manifest after that; the same one if empty.
	next string
	// want is what the object then has in the end, by path. A null means nothing.
	want string
	// anew says that it is another object then.
	anew bool
}

func resourceOf(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

const (
	rbac         = "rbac.authorization.k8s.io"
	registration = "admissionregistration.k8s.io"

	webhookRest = `"clientConfig":{"url":"https://example.com/NAME"},"sideEffects":"None","admissionReviewVersions":["v1"],
		"failurePolicy":"Ignore","rules":[{"apiGroups":["NAME.example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["x"]}]`
)

// kindCases are by the rows of docs/conformance.md.
var kindCases = map[string][]kindCase{
	"Namespace,_ServiceAccount,_Pod": {
		{
			"labels of a namespace", resourceOf("", "v1", "namespaces"),
			`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"NAME","labels":{"a":"1"}}}`,
			`{"metadata":{"labels":{"a":"2","theirs":"yes"}}}`,
			`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"NAME","labels":{"a":"1","theirs-":""}}}`,
			`{"metadata.labels.a":"1","metadata.labels.theirs":null}`, false,
		},
		{
			"a service account is only labelled", resourceOf("", "v1", "serviceaccounts"),
			`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"NAME","namespace":"NAMESPACE"},"automountServiceAccountToken":true}`,
			`{"imagePullSecrets":[{"name":"theirs"}]}`,
			`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"NAME","namespace":"NAMESPACE","annotations":{"a":"1"}},"automountServiceAccountToken":false}`,
			`{"metadata.annotations.a":"1","automountServiceAccountToken":true,"imagePullSecrets":[{"name":"theirs"}]}`, false,
		},
		{
			"the spec of a pod never changes", resourceOf("", "v1", "pods"),
			`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"serviceAccountName":"","automountServiceAccountToken":false,"containers":[{"name":"main","image":"example.com/a:1"}]}}`,
			`{"metadata":{"labels":{"a":"local"}}}`,
			`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"NAME","namespace":"NAMESPACE","labels":{"a":"1"}},"spec":{"containers":[{"name":"main","image":"example.com/a:2"}]}}`,
			`{"metadata.labels.a":"1","spec.containers.0.image":"example.com/a:1"}`, false,
		},
	},
	"ConfigMap": {
		{
			"data are replaced whole", resourceOf("", "v1", "configmaps"),
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME","namespace":"NAMESPACE"},"data":{"a":"1","b":""},"binaryData":{"c":"AA=="}}`,
			`{"data":{"a":"2","theirs":"x","b":null},"binaryData":{"c":null,"d":"AA=="}}`, "",
			`{"data":{"a":"1","b":""},"binaryData":{"c":"AA=="}}`, false,
		},
		{
			"a certificate that OpenShift injects stays", resourceOf("", "v1", "configmaps"),
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME","namespace":"NAMESPACE","labels":{"config.openshift.io/inject-trusted-cabundle":"true"},"annotations":{"service.beta.openshift.io/inject-cabundle":"true"}},"data":{"a":"1"}}`,
			`{"data":{"ca-bundle.crt":"injected","service-ca.crt":"injected","theirs":"x"}}`, "",
			`{"data":{"a":"1","ca-bundle.crt":"injected","service-ca.crt":"injected"}}`, false,
		},
	},
	"Secret": {
		{
			"stringData are data, which are replaced whole", resourceOf("", "v1", "secrets"),
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"NAME","namespace":"NAMESPACE"},"data":{"a":"MQ=="},"stringData":{"b":"2"}}`,
			`{"data":{"a":"Mw==","theirs":"Mw=="}}`, "", `{"data":{"a":"MQ==","b":"Mg=="}}`, false,
		},
		{
			"another type makes another secret", resourceOf("", "v1", "secrets"),
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"NAME","namespace":"NAMESPACE"},"data":{"a":"MQ=="}}`, "",
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"NAME","namespace":"NAMESPACE"},"type":"example.com/x","data":{"a":"MQ=="}}`,
			`{"type":"example.com/x","data":{"a":"MQ=="}}`, true,
		},
		{
			"of a service account's token only what is given", resourceOf("", "v1", "secrets"),
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"NAME","namespace":"NAMESPACE","annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token","data":{"extra":"MQ=="}}`,
			`{"data":{"token":"dA==","extra":"Mg=="}}`, "", `{"data.extra":"MQ==","data.token":"dA=="}`, false,
		},
	},
	"Service": {{
		"the spec is replaced, but not what the server chose", resourceOf("", "v1", "services"),
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"selector":{"a":"1"},"ports":[{"port":80}]}}`,
		`{"spec":{"selector":{"theirs":"x"},"sessionAffinity":"ClientIP"}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"type":"NodePort","selector":{"a":"1"},"ports":[{"port":80}]}}`,
		`{"spec.selector":{"a":"1"},"spec.type":"NodePort","spec.sessionAffinity":"None"}`, false,
	}},
	"Role_ClusterRole": {
		{
			"rules are replaced", resourceOf(rbac, "v1", "roles"),
			`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"NAME","namespace":"NAMESPACE"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`,
			`{"rules":[{"apiGroups":[""],"resources":["pods","secrets"],"verbs":["*"]}]}`, "",
			`{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`, false,
		},
		{
			"rules of an aggregated role are its controller's", resourceOf(rbac, "v1", "clusterroles"),
			`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"NAME"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"NAME":"yes"}}]},"rules":[]}`,
			`{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`, "",
			`{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"NAME":"yes"}}]}}`, false,
		},
	},
	"RoleBinding_ClusterRoleBinding": {{
		"subjects are replaced", resourceOf(rbac, "v1", "clusterrolebindings"),
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"NAME"},"subjects":[{"kind":"User","name":"a"}],"roleRef":{"kind":"ClusterRole","name":"view"}}`,
		`{"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"theirs"}]}`, "",
		`{"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"a"}]}`, false,
	}},
	"NetworkPolicy,_PDB,_CSIDriver,_CRD_v1": {
		{
			"a network policy", resourceOf("networking.k8s.io", "v1", "networkpolicies"),
			`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"podSelector":{}}}`,
			`{"spec":{"ingress":[{}]}}`, "", `{"spec.ingress":null,"spec.policyTypes":["Ingress"]}`, false,
		},
		{
			"a disruption budget", resourceOf("policy", "v1", "poddisruptionbudgets"),
			`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"a":"1"}}}}`,
			`{"spec":{"minAvailable":0}}`, "", `{"spec.minAvailable":1}`, false,
		},
		{
			"what cannot change in a CSI driver makes it anew", resourceOf("storage.k8s.io", "v1", "csidrivers"),
			`{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"NAME"},"spec":{"attachRequired":true}}`, `{"metadata":{"labels":{"theirs":"x"}}}`,
			`{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"NAME"},"spec":{"attachRequired":false}}`,
			`{"spec.attachRequired":false,"metadata.labels.theirs":"x"}`, true,
		},
		{
			"a CRD with what the server adds", resourceOf("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
			`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"xs.NAME.example.com"},"spec":{"group":"NAME.example.com","scope":"Namespaced","names":{"kind":"X","plural":"xs"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`,
			`{"spec":{"names":{"shortNames":["theirs"]}}}`, "", `{"spec.names.shortNames":null,"spec.conversion.strategy":"None"}`, false,
		},
	},
	"StorageClass": {{
		"made anew if it cannot change, and the cluster's default stays", resourceOf("storage.k8s.io", "v1", "storageclasses"),
		`{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"NAME","annotations":{"storageclass.kubernetes.io/is-default-class":"false"}},"provisioner":"example.com/x","parameters":{"a":"1"}}`,
		`{"metadata":{"annotations":{"storageclass.kubernetes.io/is-default-class":"true"}}}`,
		`{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"NAME","annotations":{"storageclass.kubernetes.io/is-default-class":"false"}},"provisioner":"example.com/x","parameters":{"a":"2"}}`,
		`{"parameters":{"a":"2"},"metadata.annotations":{"storageclass.kubernetes.io/is-default-class":"true","open-cluster-management.io/config-spec-hash":"*"}}`, true,
	}},
	"Validating_MutatingWebhookConfiguration": {
		{
			"a certificate that others inject", resourceOf(registration, "v1", "validatingwebhookconfigurations"),
			`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration","metadata":{"name":"NAME"},"webhooks":[{"name":"a.example.com",` + webhookRest + `}]}`,
			`{"webhooks":[{"name":"a.example.com","timeoutSeconds":3,` + strings.Replace(webhookRest, `"url"`, `"caBundle":"Cg==","url"`, 1) + `}]}`, "",
			`{"webhooks.0.clientConfig.caBundle":"Cg==","webhooks.0.timeoutSeconds":10}`, false,
		},
		{
			"a mutating one", resourceOf(registration, "v1", "mutatingwebhookconfigurations"),
			`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"NAME"},"webhooks":[{"name":"a.example.com",` + webhookRest + `}]}`,
			`{"webhooks":[]}`, "", `{"webhooks.0.name":"a.example.com"}`, false,
		},
	},
	"ValidatingAdmissionPolicy": {
		{
			"a policy", resourceOf(registration, "v1", "validatingadmissionpolicies"),
			`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":"NAME"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":["NAME.example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["x"]}]},"validations":[{"expression":"true"}]}}`,
			`{"spec":{"failurePolicy":"Ignore","validations":[{"expression":"1 == 1"}]}}`, "",
			`{"spec.validations.0.expression":"true","spec.failurePolicy":"Fail"}`, false,
		},
		{
			"a binding", resourceOf(registration, "v1", "validatingadmissionpolicybindings"),
			`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":"NAME"},"spec":{"policyName":"NAME","validationActions":["Audit"]}}`,
			`{"spec":{"validationActions":["Warn"]}}`, "", `{"spec.validationActions":["Audit"]}`, false,
		},
	},
	"everything_else": {
		{
			"a deployment", deployments,
			`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"1"}},"template":{"metadata":{"labels":{"a":"1"}},"spec":{"containers":[{"name":"main","image":"example.com/a:1"}]}}}}`,
			`{"spec":{"replicas":3,"paused":true}}`, "", `{"spec.replicas":2,"spec.paused":null}`, false,
		},
		{
			"a stateful set", resourceOf("apps", "v1", "statefulsets"),
			`{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"serviceName":"x","selector":{"matchLabels":{"a":"1"}},"template":{"metadata":{"labels":{"a":"1"}},"spec":{"containers":[{"name":"main","image":"example.com/a:1"}]}}}}`,
			`{"spec":{"replicas":3,"minReadySeconds":5}}`, "", `{"spec.minReadySeconds":null}`, false,
		},
		{
			"a daemon set", resourceOf("apps", "v1", "daemonsets"),
			`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"selector":{"matchLabels":{"a":"1"}},"template":{"metadata":{"labels":{"a":"1"}},"spec":{"containers":[{"name":"main","image":"example.com/a:1"}]}}}}`,
			`{"spec":{"minReadySeconds":5}}`, "", `{"spec.minReadySeconds":null}`, false,
		},
		{
			"a job, which the server completes", resourceOf("batch", "v1", "jobs"),
			`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"parallelism":1,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"main","image":"example.com/a:1"}]}}}}`,
			`{"spec":{"parallelism":3}}`, "", `{"spec.parallelism":1}`, false,
		},
		{
			"an ingress", resourceOf("networking.k8s.io", "v1", "ingresses"),
			`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"defaultBackend":{"service":{"name":"x","port":{"number":80}}}}}`,
			`{"spec":{"defaultBackend":{"service":{"port":{"number":81}}}}}`, "", `{"spec.defaultBackend.service.port.number":80}`, false,
		},
		{
			"an annotation of another stays", deployments,
			`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME","namespace":"NAMESPACE"},"spec":{"selector":{"matchLabels":{"a":"1"}},"template":{"metadata":{"labels":{"a":"1"}},"spec":{"containers":[{"name":"main","image":"example.com/a:1"}]}}}}`,
			`{"metadata":{"annotations":{"theirs":"x"}},"spec":{"minReadySeconds":5}}`, "", `{"metadata.annotations.theirs":"x","spec.minReadySeconds":null}`, false,
		},
	},
}

func TestConformanceUpdate(t *testing.T) {
	for row, cases := range kindCases {
		t.Run(row, func(t *testing.T) {
			for _, tt := range cases {
				t.Run(tt.reason, func(t *testing.T) { tt.run(newCluster(t)) })
			}
		})
	}
}

func (k kindCase) run(c *cluster) {
	name := c.namespace + "-x"
	fill := func(text string) string {
		return strings.NewReplacer("NAMESPACE", c.namespace, "NAME", name).Replace(text)
	}
	var object unstructured.Unstructured
	if err := json.Unmarshal([]byte(fill(k.manifest)), &object.Object); err != nil {
		c.Fatal(err)
	}
	live := func() *unstructured.Unstructured { return c.get(k.resource, object.GetNamespace(), object.GetName()) }
	w := c.newWork("web", fill(k.manifest))
	w.mustApply()
	was := live().GetUID()
	c.Cleanup(func() {
		if object.GetNamespace() == "" {
			_ = c.of(k.resource, "").Delete(c.ctx, object.GetName(), metav1.DeleteOptions{})
		}
	})

	c.restart(apply.Options{})
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		c.Errorf("wrote %v over what is as it should be", got)
	}
	if k.local != "" {
		c.patch(k.resource, object.GetNamespace(), object.GetName(), fill(k.local))
	}
	if k.next != "" {
		w.set(fill(k.next))
	}
	w.mustApply()
	after := live()
	var want map[string]any
	if err := json.Unmarshal([]byte(fill(k.want)), &want); err != nil {
		c.Fatal(err)
	}
	for path, value := range want {
		if diff := cmp.Diff(value, plain(c, at(after.Object, path)), anything); diff != "" {
			c.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if anew := after.GetUID() != was; anew != k.anew {
		c.Errorf("made anew: %v, want %v", anew, k.anew)
	}
	c.wire.requests()
	w.mustApply()
	if got := c.wire.writes(); len(got) > 0 {
		c.Errorf("wrote %v though nothing changed", got)
	}
}

// A role of a binding cannot change; the server says so, and so do we.
func TestConformanceUpdate_RoleRef(t *testing.T) {
	c := newCluster(t)
	binding := func(role string) map[string]any {
		return map[string]any{
			"apiVersion": rbac + "/v1", "kind": "RoleBinding", "metadata": map[string]any{"name": "b", "namespace": c.namespace},
			"subjects": []any{map[string]any{"kind": "User", "name": "a"}},
			"roleRef":  map[string]any{"kind": "ClusterRole", "name": role},
		}
	}
	w := c.newWork("web", binding("view"), c.configMap("a", nil))
	w.mustApply()
	w.set(binding("edit"), c.configMap("a", map[string]string{"x": "1"}))
	status, err := w.apply()
	if err == nil {
		t.Error("Apply did not ask for another try")
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed || !strings.Contains(manifestMessage(status, 0), "roleRef") {
		t.Errorf("Applied = %s, %s", got, manifestMessage(status, 0))
	}
	if got := manifestCondition(status, 1, workv1.ManifestApplied); got != manifestApplied {
		t.Errorf("Applied of the other = %s", got)
	}
}

// Kinds of others are custom resources to us, whatever their group.
func TestConformanceUpdate_kinds_of_others(t *testing.T) {
	for _, tt := range []struct{ group, kind, plural string }{
		{"monitoring.coreos.com", "ServiceMonitor", "servicemonitors"},
		{"monitoring.coreos.com", "PrometheusRule", "prometheusrules"},
		{"monitoring.coreos.com", "Prometheus", "prometheuses"},
		{"monitoring.coreos.com", "Alertmanager", "alertmanagers"},
		{"snapshot.storage.k8s.io", "VolumeSnapshotClass", "volumesnapshotclasses"},
		{"storagemigration.k8s.io", "StorageVersionMigration", "storageversionmigrations"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			c := newCluster(t)
			crd, _, _ := c.widget("X")
			crd["metadata"] = map[string]any{
				"name":        tt.plural + "." + tt.group,
				"annotations": map[string]any{"api-approved.kubernetes.io": "unapproved, for a test"},
			}
			spec := crd["spec"].(map[string]any)
			spec["group"] = tt.group
			spec["names"] = map[string]any{"kind": tt.kind, "plural": tt.plural}
			instance := c.object(tt.group+"/v1", tt.kind, "x", `{"size":0,"list":[{"a":""}]}`)
			w := c.newWork("web", instance, crd)
			w.mustApply()
			served := resourceOf(tt.group, "v1", tt.plural)
			c.patch(served, c.namespace, "x", `{"spec":{"size":1,"theirs":"x"},"metadata":{"labels":{"theirs":"x"}}}`)
			w.mustApply()
			live := c.get(served, c.namespace, "x")
			if diff := cmp.Diff(instance["spec"], plain(c, live.Object["spec"])); diff != "" || live.GetLabels()["theirs"] != "x" {
				t.Errorf("labels %v, spec (-want +got):\n%s", live.GetLabels(), diff)
			}
			c.restart(apply.Options{})
			w.mustApply()
			if got := c.wire.writes(); len(got) > 0 {
				t.Errorf("wrote %v over what is as it should be", got)
			}
		})
	}
}

// anything lets a wanted asterisk stand for any value.
var anything = cmp.FilterValues(func(a, b any) bool { return a == any("*") || b == any("*") }, cmp.Ignore())

// at returns the value at a path with dots, of which lists take indexes.
func at(v any, path string) any {
	for step := range strings.SplitSeq(path, ".") {
		switch have := v.(type) {
		case map[string]any:
			v = have[step]
		case []any:
			v = nil
			if i := int(step[0] - '0'); i < len(have) {
				v = have[i]
			}
		default:
			return nil
		}
	}
	return v
}

// plain returns a value as JSON reads it.
func plain(c *cluster, v any) any {
	c.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		c.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		c.Fatal(err)
	}
	return out
}
