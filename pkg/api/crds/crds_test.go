package crds_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"sigs.k8s.io/yaml"

	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

func all() []*apiextensionsv1.CustomResourceDefinition {
	return append(crds.Hub(), crds.Agent()...)
}

func TestHubAndAgentSplitTheFiles(t *testing.T) {
	files, err := crds.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, f := range files {
		want = append(want, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	for _, crd := range all() {
		got = append(got, crd.Spec.Group+"_"+crd.Spec.Names.Plural)
	}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("every file belongs to the hub or to the agent (-files +parsed):\n%s", diff)
	}

	var agent []string
	for _, crd := range crds.Agent() {
		agent = append(agent, crd.Spec.Names.Kind+" "+string(crd.Spec.Scope))
	}
	if diff := cmp.Diff([]string{"AppliedManifestWork Cluster", "ClusterClaim Cluster"}, agent); diff != "" {
		t.Errorf("CRDs of the agent (-want +got):\n%s", diff)
	}
}

func TestResultsAreTheCallersOwn(t *testing.T) {
	crds.Hub()[0].Name = "changed"
	if got := crds.Hub()[0].Name; got == "changed" {
		t.Error("a change to one result shows in the next")
	}
}

func TestSchemasAreStructural(t *testing.T) {
	for _, crd := range all() {
		for _, v := range crd.Spec.Versions {
			var internal apiextensions.JSONSchemaProps
			if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, &internal, nil); err != nil {
				t.Errorf("%s %s: convert the schema: %v", crd.Name, v.Name, err)
				continue
			}
			s, err := schema.NewStructural(&internal)
			if err != nil {
				t.Errorf("%s %s: %v", crd.Name, v.Name, err)
				continue
			}
			if errs := schema.ValidateStructural(nil, s); len(errs) > 0 {
				t.Errorf("%s %s: %v", crd.Name, v.Name, errs)
			}
		}
	}
}

// TestServedVersionsNeedNoConversion holds the rule that lets every CRD do
// without a conversion webhook.
func TestServedVersionsNeedNoConversion(t *testing.T) {
	for _, crd := range all() {
		if c := crd.Spec.Conversion; c != nil && c.Strategy != apiextensionsv1.NoneConverter {
			t.Errorf("%s: conversion strategy %s", crd.Name, c.Strategy)
		}
		var stored []apiextensionsv1.CustomResourceDefinitionVersion
		for _, v := range crd.Spec.Versions {
			if v.Storage {
				stored = append(stored, v)
			}
		}
		if len(stored) != 1 || !stored[0].Served {
			t.Errorf("%s: stored versions %v, want one that is served", crd.Name, stored)
			continue
		}
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			if diff := cmp.Diff(stored[0].Schema, v.Schema, ignoreDescriptions); diff != "" {
				t.Errorf("%s: served version %s differs from the stored %s:\n%s", crd.Name, v.Name, stored[0].Name, diff)
			}
		}
	}
}

var ignoreDescriptions = cmpopts.IgnoreFields(apiextensionsv1.JSONSchemaProps{}, "Description")

// TestSameAsOCM compares with the manifests that OCM ships beside its types.
func TestSameAsOCM(t *testing.T) {
	shipped := ocm(t)
	for _, crd := range all() {
		if crd.Spec.Group == v1alpha1.GroupVersion.Group {
			continue // This project's own.
		}
		want := shipped[crd.Name]
		if want == nil {
			t.Errorf("%s: OCM ships no such CRD", crd.Name)
			continue
		}
		delete(shipped, crd.Name)

		// What OCM leaves to the API server's default.
		want.Spec.PreserveUnknownFields = false
		got := crd.DeepCopy()
		got.Spec.Conversion = nil
		for i := range got.Spec.Versions {
			v := &got.Spec.Versions[i]
			if !v.Served {
				// Not served because OCM converts it with a webhook.
				v.Served = true
			}
		}
		if crd.Spec.Names.Kind == "AddOnTemplate" {
			// The shipped schema was generated from an older rbac/v1, where a role
			// reference had to name its API group.
			requireRoleGroup(t, got)
		}
		if diff := cmp.Diff(want.Spec, got.Spec, ignoreDescriptions, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-shipped +generated):\n%s", crd.Name, diff)
		}
	}
	for name := range shipped {
		t.Errorf("%s: OCM ships this CRD and we do not", name)
	}
}

// requireRoleGroup adds apiGroup to the required fields of every schema that
// requires exactly kind and name beside an apiGroup.
func requireRoleGroup(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	changed := false
	var walk func(s *apiextensionsv1.JSONSchemaProps)
	walk = func(s *apiextensionsv1.JSONSchemaProps) {
		if _, ok := s.Properties["apiGroup"]; ok && cmp.Equal(s.Required, []string{"kind", "name"}) {
			s.Required = []string{"apiGroup", "kind", "name"}
			changed = true
		}
		for name, p := range s.Properties {
			walk(&p)
			s.Properties[name] = p
		}
		if s.Items != nil && s.Items.Schema != nil {
			walk(s.Items.Schema)
		}
	}
	for _, v := range crd.Spec.Versions {
		walk(v.Schema.OpenAPIV3Schema)
	}
	if !changed {
		t.Errorf("%s: the role reference requires its API group by now: remove this exception", crd.Name)
	}
}

// ocm reads the CRDs in the module of OCM's types, by name. Where two folders
// hold one name, the file with more versions wins.
func ocm(t *testing.T) map[string]*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), "go", "list", "-m", "-f", "{{.Dir}}", "open-cluster-management.io/api").Output()
	if err != nil {
		t.Fatalf("find the module of OCM's types: %v", err)
	}
	shipped := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, group := range []string{"work", "cluster", "addon"} {
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), group, "*", "*.crd.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := yaml.Unmarshal(b, crd); err != nil {
				t.Fatalf("parse %s: %v", f, err)
			}
			if old := shipped[crd.Name]; old == nil || len(old.Spec.Versions) < len(crd.Spec.Versions) {
				shipped[crd.Name] = crd
			}
		}
	}
	if len(shipped) == 0 {
		t.Fatal("the module of OCM's types holds no CRDs")
	}
	return shipped
}
