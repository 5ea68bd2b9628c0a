// Package charts_test holds the Helm charts against their golden files, their
// schemas, the programs they start and a real API server.
package charts_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	ctrl "sigs.k8s.io/controller-runtime"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

var (
	update = flag.Bool("update", false, "write the golden files")

	all = []string{"hub", "agent", "broker"}
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	apitest.Main(m, apitest.Full)
}

// A release is a rendered chart.
type release struct {
	objects []*unstructured.Unstructured // In the order of their files.
	text    string
	notes   string
}

// render renders a chart as "helm install test charts/NAME" does.
func render(name, namespace string, values map[string]any) (*release, error) {
	chart, err := loader.Load(name)
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: "test", Namespace: namespace, Revision: 1, IsInstall: true}
	top, err := util.ToRenderValues(chart, values, options, nil)
	if err != nil {
		return nil, err
	}
	var e engine.Engine
	files, err := e.RenderWithContext(context.Background(), chart, top)
	if err != nil {
		return nil, err
	}
	r := &release{}
	var text strings.Builder
	for _, path := range slices.Sorted(maps.Keys(files)) {
		content := strings.TrimSpace(files[path])
		switch {
		case filepath.Base(path) == "NOTES.txt":
			r.notes = content
		case strings.HasSuffix(path, ".yaml") && content != "":
			text.WriteString("# " + path + "\n" + content + "\n---\n")
		}
	}
	r.text = strings.TrimSuffix(text.String(), "---\n")
	r.objects, err = parse(r.text)
	return r, err
}

func parse(text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var u unstructured.Unstructured
		if err := decoder.Decode(&u.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		objects = append(objects, &u)
	}
}

func mustRender(t *testing.T, name, namespace string, values map[string]any) *release {
	t.Helper()
	r, err := render(name, namespace, values)
	if err != nil {
		t.Fatalf("render chart %s: %v", name, err)
	}
	return r
}

func readValues(t *testing.T, path string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := sigsyaml.UnmarshalStrict(raw, &values); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return values
}

// eachValues runs a test for every file of values in the charts' ci folders.
func eachValues(t *testing.T, test func(t *testing.T, chart string, values map[string]any)) {
	t.Helper()
	for _, chart := range all {
		paths, err := filepath.Glob(filepath.Join(chart, "ci", "*-values.yaml"))
		if err != nil || len(paths) < 3 {
			t.Fatalf("values of chart %s: found %d, %v", chart, len(paths), err)
		}
		for _, path := range paths {
			t.Run(chart+"/"+strings.TrimSuffix(filepath.Base(path), "-values.yaml"), func(t *testing.T) {
				test(t, chart, readValues(t, path))
			})
		}
	}
}

func TestLint(t *testing.T) {
	eachValues(t, func(t *testing.T, chart string, values map[string]any) {
		for _, m := range lint.RunAll(chart, values, "fleetcast").Messages {
			// Charts have no icon; everything else counts, as with --strict.
			if m.Severity > support.InfoSev {
				t.Error(m)
			}
		}
	})
}

func TestGolden(t *testing.T) {
	eachValues(t, func(t *testing.T, chart string, values map[string]any) {
		r := mustRender(t, chart, "fleetcast", values)
		got := r.text + "--- # NOTES.txt\n" + r.notes + "\n"
		golden := filepath.Join("testdata", t.Name()[len("TestGolden/"):]+".yaml")
		if *update {
			if err := errors.Join(os.MkdirAll(filepath.Dir(golden), 0o755), os.WriteFile(golden, []byte(got), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatalf("%v; write it with go test -update", err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("rendered otherwise than before; if that is meant, run go test -update (-want +got):\n%s", diff)
		}
	})
}

// TestSharedTemplates keeps what the charts have in common from drifting apart:
// a library chart would have to be fetched before a chart could be installed.
func TestSharedTemplates(t *testing.T) {
	read := func(chart, file string) []byte {
		raw, err := os.ReadFile(filepath.Join(chart, "templates", file))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, file := range []string{"_fleetcast.tpl", "serviceaccount.yaml", "networkpolicy.yaml"} {
		if !bytes.Equal(read("hub", file), read("agent", file)) {
			t.Errorf("%s of the charts hub and agent differ", file)
		}
	}
	shared := string(read("hub", "_fleetcast.tpl"))
	for block := range strings.SplitSeq(string(read("broker", "_fleetcast.tpl")), "\n\n") {
		if strings.Contains(block, "define") && !strings.Contains(shared, strings.TrimSpace(block)) {
			t.Errorf("the chart broker has another version of\n%s", block)
		}
	}
}
