package charts_test

import (
	"bytes"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fleetcast-io/fleetcast/pkg/work"
)

// TestPolicies holds the policies of the chart against those that the hub itself
// would install with the same settings.
func TestPolicies(t *testing.T) {
	hub, err := os.ReadFile("../pkg/work/policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	chart, err := os.ReadFile("hub/files/policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(hub, chart) {
		t.Error("charts/hub/files/policies.yaml is no copy of pkg/work/policies.yaml")
	}
	for _, tc := range []struct {
		reason   string
		values   map[string]any
		settings *work.PolicySettings // Nil for none.
	}{
		{"by default", nil, &work.PolicySettings{ManifestLimit: work.DefaultManifestLimit}},
		{"with settings", map[string]any{"manifestLimit": 100000000, "nilExecutorValidating": true}, &work.PolicySettings{ManifestLimit: 100000000, NilExecutorValidating: true}},
		{"without a limit", map[string]any{"manifestLimit": 0}, &work.PolicySettings{}},
		{"not at all", map[string]any{"installPolicies": false}, nil},
	} {
		values := map[string]any{"broker": map[string]any{"url": "tls://a"}}
		maps.Copy(values, tc.values)
		var policies []*admissionv1.ValidatingAdmissionPolicy
		var bindings []*admissionv1.ValidatingAdmissionPolicyBinding
		for _, u := range mustRender(t, "hub", "fleetcast", values).objects {
			var into any
			switch u.GetKind() {
			case "ValidatingAdmissionPolicy":
				policies = append(policies, &admissionv1.ValidatingAdmissionPolicy{})
				into = policies[len(policies)-1]
			case "ValidatingAdmissionPolicyBinding":
				bindings = append(bindings, &admissionv1.ValidatingAdmissionPolicyBinding{})
				into = bindings[len(bindings)-1]
			default:
				if strings.HasSuffix(u.GetName(), "executor-admin") && tc.settings == nil {
					t.Errorf("%s: there is ClusterRole %s", tc.reason, u.GetName())
				}
				continue
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
				t.Fatal(err)
			}
		}
		var wantPolicies []*admissionv1.ValidatingAdmissionPolicy
		var wantBindings []*admissionv1.ValidatingAdmissionPolicyBinding
		if tc.settings != nil {
			wantPolicies, wantBindings = work.Policies(*tc.settings)
		}
		labels := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "Labels")
		if diff := cmp.Diff(wantPolicies, policies, labels); diff != "" {
			t.Errorf("%s: policies (-want +got):\n%s", tc.reason, diff)
		}
		if diff := cmp.Diff(wantBindings, bindings, labels); diff != "" {
			t.Errorf("%s: bindings (-want +got):\n%s", tc.reason, diff)
		}
	}
}
