package v1alpha1_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// TestLimitsAreTheSchemas: what the hub cuts off is what the API server would
// refuse.
func TestLimitsAreTheSchemas(t *testing.T) {
	status := agentSchema(t).Properties["status"]
	for list, want := range map[string]int64{
		"capabilities": v1alpha1.MaxCapabilities,
		"unclaimed":    v1alpha1.MaxUnclaimed,
		"tombstones":   v1alpha1.MaxTombstones,
	} {
		got := status.Properties[list].MaxItems
		if got == nil || *got != want {
			t.Errorf("status.%s: maxItems %v, want %d", list, got, want)
		}
	}
	if got := agentSchema(t).Properties["spec"].Properties["delete"].MaxItems; got == nil || *got != v1alpha1.MaxUnclaimed {
		t.Errorf("spec.delete: maxItems %v, want that of status.unclaimed, %d", got, v1alpha1.MaxUnclaimed)
	}
}

// TestEveryListIsBounded: no field of the hub's own lets a list grow without end.
func TestEveryListIsBounded(t *testing.T) {
	var walk func(path string, s apiextensionsv1.JSONSchemaProps)
	walk = func(path string, s apiextensionsv1.JSONSchemaProps) {
		if s.Type == "array" && s.MaxItems == nil {
			t.Errorf("%s has no maxItems", path)
		}
		if s.Items != nil && s.Items.Schema != nil {
			walk(path+"[]", *s.Items.Schema)
		}
		for name, p := range s.Properties {
			if name == "deleteOption" {
				continue // OCM's type, copied from a work.
			}
			walk(path+"."+name, p)
		}
	}
	walk("", agentSchema(t))
}

func agentSchema(t *testing.T) apiextensionsv1.JSONSchemaProps {
	t.Helper()
	for _, crd := range crds.Hub() {
		if crd.Name == "agents.fleetcast.io" {
			return *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		}
	}
	t.Fatal("there is no CRD of agents")
	return apiextensionsv1.JSONSchemaProps{}
}

func TestTombstoneKeepsItsIdentity(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC))
	stone := v1alpha1.Tombstone{
		ID: "d413c17e", Name: "web", Generation: 7, DeletedAt: at,
		DeleteOption: &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan},
	}
	text, err := json.Marshal(stone)
	if err != nil {
		t.Fatal(err)
	}
	var got v1alpha1.Tombstone
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	w := got.Work("c1")
	want := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
		Namespace: "c1", Name: "web", UID: "d413c17e", Generation: 7, DeletionTimestamp: &at,
	}}
	want.Spec.DeleteOption = stone.DeleteOption
	if diff := cmp.Diff(want, w); diff != "" {
		t.Errorf("the work of a tombstone (-want +got):\n%s", diff)
	}
	w.Spec.DeleteOption.PropagationPolicy = workv1.DeletePropagationPolicyTypeForeground
	if got.DeleteOption.PropagationPolicy != workv1.DeletePropagationPolicyTypeOrphan {
		t.Error("a change to the work shows in the tombstone")
	}
}
