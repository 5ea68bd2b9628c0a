package api_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
)

// TestNewSchemeKnowsEveryCRD: a client made with the scheme can read and write
// each kind that a CRD declares, and its list, in every version.
func TestNewSchemeKnowsEveryCRD(t *testing.T) {
	scheme := api.NewScheme()
	for _, crd := range append(crds.Hub(), crds.Agent()...) {
		for _, v := range crd.Spec.Versions {
			for _, kind := range []string{crd.Spec.Names.Kind, crd.Spec.Names.ListKind} {
				gvk := schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: kind}
				if !scheme.Recognizes(gvk) {
					t.Errorf("%s is not registered", gvk)
				}
			}
		}
	}
	for _, gvk := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "Namespace"},
		{Version: "v1", Kind: "Secret"},
		{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"},
		{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"},
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	} {
		if !scheme.Recognizes(gvk) {
			t.Errorf("%s is not registered", gvk)
		}
	}
}
