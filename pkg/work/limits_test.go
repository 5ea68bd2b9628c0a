package work_test

import (
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/work"
)

// TestUndecodableManifests: no API server with the CRD stores these, so only the
// hub sees them.
func TestUndecodableManifests(t *testing.T) {
	for name, tc := range map[string]struct{ reason, manifest, want string }{
		"no JSON":           {"it ends early", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"p":"hunter2"`, "is no object"},
		"a list":            {"it is no object", `["hunter2"]`, "is no object"},
		"a text":            {"it is no object", `"hunter2"`, "is no object"},
		"null":              {"it is nothing", `null`, "has no apiVersion"},
		"a number for name": {"names are texts", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":5}}`, "is no object"},
		"no kind":           {"of what kind is it", `{"apiVersion":"v1","metadata":{"name":"a"}}`, "no apiVersion or no kind"},
		"two slashes":       {"that is no version", `{"apiVersion":"a/b/c","kind":"Secret","metadata":{"name":"a"}}`, "not group/version"},
		"other letters":     {"fields are told apart by case", `{"apiVersion":"v1","kind":"Secret","Metadata":{"name":"a"}}`, "no metadata.name"},
	} {
		t.Run(name, func(t *testing.T) {
			reason, message := work.Limits{}.Check(workOf("c1", "w", configMap("a", ""), tc.manifest))
			if reason != api.ReasonInvalid || !strings.Contains(message, "Manifest 1 ") || !strings.Contains(message, tc.want) {
				t.Errorf("%s: %s: %q, want %q", tc.reason, reason, message, tc.want)
			}
			if strings.Contains(message, "hunter2") {
				t.Errorf("the message quotes the manifest: %s", message)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(configMap("a", "b")))
	f.Add([]byte(`{"metadata":null}`))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		reason, message := work.Limits{Manifests: 100}.Check(workOf("c1", "w", string(manifest)))
		if (reason == "") != (message == "") {
			t.Errorf("reason %q, message %q", reason, message)
		}
	})
}
