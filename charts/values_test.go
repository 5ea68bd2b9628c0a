package charts_test

import (
	"path/filepath"
	"strings"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"
)

func TestBadValues(t *testing.T) {
	for _, tc := range []struct{ reason, chart, values, want string }{
		{"a hub without a broker can do nothing", "hub", `{}`, "broker.url: say where the broker is"},
		{"a cluster has a name", "agent", `{broker: {url: "nats://a"}, rbac: {profile: none}}`, "clusterName: name this cluster"},
		{"an agent without a broker can do nothing", "agent", `{clusterName: c1, rbac: {profile: none}}`, "broker.url: say where the broker is"},
		{"rights of works are somebody's decision", "agent", `{clusterName: c1, broker: {url: "nats://a"}}`, "rbac.profile: choose none, admin or cluster-admin"},
		{"a broker in the clear is somebody's decision", "broker", `{}`, "tls.existingSecret: name a Secret"},
		{"one certificate, one identity", "broker", `{tls: {existingSecret: a}, clusters: [source-hub1]}`, "source-hub1 would have the certificate of a source"},

		{"a typing error at the top", "hub", `{broker: {url: "nats://a"}, replicaCount: 1}`, "replicaCount"},
		{"a typing error below", "agent", `{broker: {url: "nats://a", existingsecret: a}}`, "existingsecret"},
		{"a typing error far below", "hub", `{broker: {url: "nats://a", ca: {secret: a}}}`, "secret"},
		{"a typing error in the broker's", "broker", `{allowinsecure: true}`, "allowinsecure"},
		{"a type error", "hub", `{broker: {url: "nats://a"}, replicas: "2"}`, "/replicas"},
		{"passwords do not belong in arguments", "hub", `{broker: {url: "nats://me:secret@a:4222"}}`, "/broker/url"},
		{"a scheme that no driver has", "agent", `{broker: {url: "https://a"}}`, "/broker/url"},
		{"an agent has no broker of its own", "agent", `{broker: {url: "mem:"}}`, "/broker/url"},
		{"a profile that is not one", "agent", `{rbac: {profile: edit}}`, "/rbac/profile"},
		{"a cluster name that is no namespace", "agent", `{clusterName: Cluster_1}`, "/clusterName"},
		{"a name that would be another subject", "broker", `{clusters: ["c1.*"]}`, "/clusters/0"},
		{"a source that no object can be called", "hub", `{sourceID: Hub_1}`, "/sourceID"},
		{"a share that is none", "hub", `{maxDeletionShare: 20}`, "/maxDeletionShare"},
		{"a share of nothing", "hub", `{maxDeletionShare: -0.1}`, "/maxDeletionShare"},
		{"half a work", "hub", `{maxDeletions: 1.5}`, "/maxDeletions"},
		{"less than nothing", "hub", `{manifestLimit: -1}`, "/manifestLimit"},
		{"a size with a unit", "hub", `{manifestLimit: 500Ki}`, "/manifestLimit"},
		{"a digest that is not one", "hub", `{image: {digest: latest}}`, "/image/digest"},
	} {
		var values map[string]any
		if err := sigsyaml.UnmarshalStrict([]byte(tc.values), &values); err != nil {
			t.Fatal(err)
		}
		if _, err := render(tc.chart, "fleetcast", values); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: chart %s with %s: got %v, want an error with %q", tc.reason, tc.chart, tc.values, err, tc.want)
		}
	}
}

// TestSchemaKnowsAllValues finds values without a schema and, as a schema with
// a property too many hides a typing error, the other way round.
func TestSchemaKnowsAllValues(t *testing.T) {
	for _, chart := range all {
		schema := readValues(t, filepath.Join(chart, "values.schema.json"))
		compareWithSchema(t, chart, schema, readValues(t, filepath.Join(chart, "values.yaml")))
	}
}

func compareWithSchema(t *testing.T, path string, schema, values map[string]any) {
	t.Helper()
	properties, _ := schema["properties"].(map[string]any)
	if properties == nil {
		return // The content is Kubernetes' own.
	}
	if schema["additionalProperties"] != false {
		t.Errorf("%s: the schema takes any name", path)
	}
	for name, property := range properties {
		value, ok := values[name]
		if !ok && name != "global" {
			t.Errorf("%s.%s has a schema and no default", path, name)
		}
		if below, ok := value.(map[string]any); ok {
			nested, _ := property.(map[string]any)
			compareWithSchema(t, path+"."+name, nested, below)
		}
	}
	for name := range values {
		if properties[name] == nil {
			t.Errorf("%s.%s has a default and no schema", path, name)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tc := range []struct {
		reason, chart, values string
		want                  []string
	}{
		{"nothing to say of a good hub", "hub", `{broker: {url: "tls://a"}}`, nil},
		{"plaintext", "hub", `{broker: {url: "mqtt://a"}}`, []string{"without TLS"}},
		{"one replica", "hub", `{broker: {url: "tls://a"}, replicas: 1}`, []string{"one replica"}},
		{"deletions without a limit", "hub", `{broker: {url: "tls://a"}, maxDeletionShare: 1}`, []string{"no deletion is withheld"}},
		{"no broker", "hub", `{broker: {url: "mem:"}}`, []string{"no cluster can be reached"}},
		{"nothing to say of a good agent", "agent", `{clusterName: c1, broker: {url: "tls://a"}, rbac: {profile: admin}}`, nil},
		{
			"everything at once", "agent", `{clusterName: c1, broker: {url: "nats://a"}, rbac: {profile: cluster-admin}, persistence: {enabled: false}}`,
			[]string{"works may do everything", "without TLS", "nothing is kept"},
		},
		{"nothing to say of a good broker", "broker", `{tls: {existingSecret: a}, clusters: [c1]}`, nil},
		{"a broker to try", "broker", `{allowInsecure: true, persistence: {enabled: false}}`, []string{"no TLS", "may do everything", "nothing is kept"}},
		{"users without TLS", "broker", `{allowInsecure: true, auth: {existingSecret: a}}`, []string{"no TLS"}},
	} {
		var values map[string]any
		if err := sigsyaml.UnmarshalStrict([]byte(tc.values), &values); err != nil {
			t.Fatal(err)
		}
		notes := mustRender(t, tc.chart, "fleetcast", values).notes
		if got := strings.Count(notes, "WARNING"); got != len(tc.want) {
			t.Errorf("%s: %d warnings, want %d:\n%s", tc.reason, got, len(tc.want), notes)
		}
		for _, want := range tc.want {
			if !strings.Contains(notes, want) {
				t.Errorf("%s: no warning with %q:\n%s", tc.reason, want, notes)
			}
		}
	}
}
