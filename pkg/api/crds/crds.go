// Package crds holds the CRDs of the OCM APIs that a hub and a cluster serve, and
// of this project's own.
//
// The YAML files are generated from the Go types of
// open-cluster-management.io/api and of pkg/api/v1alpha1. Every kind has one stored version, the one
// that OCM stores, and no kind needs a conversion webhook: a second version is
// served only where its schema is the stored one's. The add-on kinds whose
// v1beta1 renamed fields therefore serve v1alpha1 alone.
package crds

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// FS holds one YAML file per CRD, named <group>_<plural>.yaml.
//
//go:embed *.yaml
var FS embed.FS

// onAgent names the CRDs that a managed cluster serves. All others belong to
// the hub.
var onAgent = map[string]bool{
	"appliedmanifestworks.work.open-cluster-management.io": true,
	"clusterclaims.cluster.open-cluster-management.io":     true,
}

var parsed = sync.OnceValue(parse)

// Hub returns the CRDs that a hub serves, by name. The caller owns the result.
func Hub() []*apiextensionsv1.CustomResourceDefinition { return list(false) }

// Agent returns the CRDs that a managed cluster serves, by name: AppliedManifestWork
// and ClusterClaim. The caller owns the result.
func Agent() []*apiextensionsv1.CustomResourceDefinition { return list(true) }

func list(agent bool) []*apiextensionsv1.CustomResourceDefinition {
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, crd := range parsed() {
		if onAgent[crd.Name] == agent {
			crds = append(crds, crd.DeepCopy())
		}
	}
	return crds
}

// parse panics when an embedded file does not parse: the binary itself would
// be broken.
func parse() []*apiextensionsv1.CustomResourceDefinition {
	entries, err := FS.ReadDir(".")
	if err != nil {
		panic(fmt.Sprintf("list embedded CRDs: %v", err))
	}
	crds := make([]*apiextensionsv1.CustomResourceDefinition, 0, len(entries))
	for _, e := range entries {
		b, err := FS.ReadFile(e.Name())
		if err != nil {
			panic(fmt.Sprintf("read embedded CRD %s: %v", e.Name(), err))
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(b, crd); err != nil {
			panic(fmt.Sprintf("parse embedded CRD %s: %v", e.Name(), err))
		}
		crds = append(crds, crd)
	}
	slices.SortFunc(crds, func(a, b *apiextensionsv1.CustomResourceDefinition) int {
		return cmp.Compare(a.Name, b.Name)
	})
	return crds
}
