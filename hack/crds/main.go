// Command crds generates the CRDs of the OCM APIs and of this project's own into
// a directory, and the deep copies of its own types beside them.
//
// The schemas come from controller-gen, run on the Go types of the
// open-cluster-management.io/api version that go.mod names and of pkg/api. What
// OCM's types do not say is added here: see [complete].
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const (
	ownGroup  = "fleetcast.io"
	apiModule = "open-cluster-management.io/api"
	own       = "github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	tool      = "sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0"
)

// stored are the packages of the versions that are stored.
var stored = []string{
	"work/v1", "work/v1alpha1",
	"cluster/v1", "cluster/v1alpha1", "cluster/v1beta1", "cluster/v1beta2",
	"addon/v1alpha1",
}

// later is the package whose versions stand beside the stored ones.
const later = "addon/v1beta1"

// served lists the CRDs whose later version may be served without a conversion
// webhook: its schema is the stored one's, so strategy None loses nothing. The
// other add-on kinds renamed fields in v1beta1. Serving those with strategy None
// would silently prune the renamed fields on every write, so v1beta1 is declared
// and not served.
var served = map[string]bool{
	"addondeploymentconfigs.addon.open-cluster-management.io": true,
}

// clusterScoped lists the CRDs whose Go type does not carry the scope marker.
var clusterScoped = map[string]bool{
	"appliedmanifestworks.work.open-cluster-management.io": true,
}

func main() {
	out := flag.String("out", "pkg/api/crds", "directory to write the CRDs to")
	controllerGen := flag.String("controller-gen", "", "controller-gen binary; empty runs "+tool)
	flag.Parse()
	if err := run(*out, *controllerGen); err != nil {
		fmt.Fprintln(os.Stderr, "crds:", err)
		os.Exit(1)
	}
}

func run(out, controllerGen string) (err error) {
	temp, err := os.MkdirTemp("", "crds")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	// One run per set: a package that holds the only version of a kind needs no
	// storage marker, and the add-on types have none.
	storedDir, laterDir := filepath.Join(temp, "stored"), filepath.Join(temp, "later")
	if err := generate(controllerGen, storedDir, ofModule(stored...)...); err != nil {
		return err
	}
	if err := generate(controllerGen, laterDir, ofModule(later)...); err != nil {
		return err
	}
	if err := generate(controllerGen, storedDir, own); err != nil {
		return err
	}
	if err := runControllerGen(controllerGen, "object", "paths="+own); err != nil {
		return err
	}
	crds, err := read(storedDir)
	if err != nil {
		return err
	}
	more, err := read(laterDir)
	if err != nil {
		return err
	}
	for file, crd := range crds {
		if err := complete(crd, more[file]); err != nil {
			return fmt.Errorf("complete %s: %w", crd.Name, err)
		}
		delete(more, file)
	}
	for file := range more {
		return fmt.Errorf("%s has no stored version", file)
	}
	return write(out, crds)
}

// ofModule are the import paths of packages of the API module.
func ofModule(packages ...string) []string {
	paths := make([]string, 0, len(packages))
	for _, p := range packages {
		paths = append(paths, apiModule+"/"+p)
	}
	return paths
}

// generate writes the CRDs of packages into dir.
func generate(controllerGen, dir string, packages ...string) error {
	args := []string{"crd", "output:crd:dir=" + dir}
	for _, p := range packages {
		args = append(args, "paths="+p)
	}
	return runControllerGen(controllerGen, args...)
}

func runControllerGen(controllerGen string, args ...string) error {
	if controllerGen == "" {
		controllerGen, args = "go", append([]string{"run", tool}, args...)
	}
	cmd := exec.Command(controllerGen, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run controller-gen %v: %w", args, err)
	}
	return nil
}

func read(dir string) (map[string]*apiextensionsv1.CustomResourceDefinition, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	crds := make(map[string]*apiextensionsv1.CustomResourceDefinition, len(files))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(b, crd); err != nil {
			return nil, fmt.Errorf("parse %s: %w", f, err)
		}
		crds[filepath.Base(f)] = crd
	}
	return crds, nil
}

// complete adds to crd the versions of more, which may be nil, and everything
// else that the Go types leave open.
func complete(crd, more *apiextensionsv1.CustomResourceDefinition) error {
	if clusterScoped[crd.Name] {
		crd.Spec.Scope = apiextensionsv1.ClusterScoped
	}
	if n := len(crd.Spec.Versions); n != 1 {
		return fmt.Errorf("%d stored versions, want 1", n)
	}
	if more == nil {
		return nil
	}
	for _, v := range more.Spec.Versions {
		v.Storage = false
		v.Served = served[crd.Name]
		crd.Spec.Versions = append(crd.Spec.Versions, v)
	}
	crd.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	return nil
}

func write(out string, crds map[string]*apiextensionsv1.CustomResourceDefinition) error {
	old, err := filepath.Glob(filepath.Join(out, "*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	for file, crd := range crds {
		// The status belongs to the API server, and yaml cannot leave it out.
		manifest := struct {
			APIVersion string                                       `json:"apiVersion"`
			Kind       string                                       `json:"kind"`
			Metadata   map[string]any                               `json:"metadata"`
			Spec       apiextensionsv1.CustomResourceDefinitionSpec `json:"spec"`
		}{
			crd.APIVersion, crd.Kind,
			map[string]any{"name": crd.Name, "annotations": crd.Annotations},
			crd.Spec,
		}
		b, err := yaml.Marshal(manifest)
		if err != nil {
			return fmt.Errorf("encode %s: %w", crd.Name, err)
		}
		from := apiModule
		if crd.Spec.Group == ownGroup {
			from = own
		}
		header := "# Generated by hack/generate.sh from " + from + "; do not edit.\n"
		if err := os.WriteFile(filepath.Join(out, file), append([]byte(header), b...), 0o644); err != nil {
			return err
		}
	}
	return nil
}
