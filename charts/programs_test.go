package charts_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fleetcast-io/fleetcast/pkg/agent"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

// podTemplate returns the pod of a workload, nil for other objects.
func podTemplate(t *testing.T, u *unstructured.Unstructured) *corev1.PodTemplateSpec {
	t.Helper()
	content, found, err := unstructured.NestedMap(u.Object, "spec", "template")
	if err != nil || !found {
		return nil
	}
	var template corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(content, &template, true); err != nil {
		t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
	}
	return &template
}

// TestFlags has the programs read the arguments and the environment that the
// charts give them.
func TestFlags(t *testing.T) {
	eachValues(t, func(t *testing.T, chart string, values map[string]any) {
		started := 0
		for _, u := range mustRender(t, chart, "fleetcast", values).objects {
			template := podTemplate(t, u)
			if template == nil {
				continue
			}
			container := template.Spec.Containers[0]
			started++
			fs := pflag.NewFlagSet(chart, pflag.ContinueOnError)
			var validate func() error
			switch chart {
			case "hub":
				validate = hub.Flags(fs).Validate
			case "agent":
				validate = agent.Flags(fs).Validate
			default:
				// nats-server has its flags from its image.
				continue
			}
			known := environment(fs)
			for _, e := range container.Env {
				t.Setenv(e.Name, "value")
				if strings.HasPrefix(e.Name, flags.EnvPrefix) && !slices.Contains(known, e.Name) {
					t.Errorf("%s stands in for no flag", e.Name)
				}
			}
			if err := flags.Parse(fs, container.Args); err != nil {
				t.Fatal(err)
			}
			if err := validate(); err != nil {
				t.Error(err)
			}
		}
		if started != 1 {
			t.Errorf("%d pods, want 1", started)
		}
	})
}

// environment lists the variables that stand in for flags.
func environment(fs *pflag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		names = append(names, flags.EnvPrefix+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
	})
	return names
}

// TestProbes keeps the life of a pod from depending on anything but itself.
func TestProbes(t *testing.T) {
	eachValues(t, func(t *testing.T, chart string, values map[string]any) {
		for _, u := range mustRender(t, chart, "fleetcast", values).objects {
			template := podTemplate(t, u)
			if template == nil {
				continue
			}
			c := template.Spec.Containers[0]
			want := map[string][2]string{
				"hub": {"/livez", "/readyz"}, "agent": {"/livez", "/readyz"},
				"broker": {"/healthz?js-enabled-only=true", "/healthz?js-server-only=true"},
			}[chart]
			if got := [2]string{c.LivenessProbe.HTTPGet.Path, c.ReadinessProbe.HTTPGet.Path}; got != want {
				t.Errorf("life and readiness are %v, want %v", got, want)
			}
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				port := probe.HTTPGet.Port.StrVal
				if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
					t.Errorf("a probe asks at port %q, which there is not", port)
				}
			}
		}
	})
}

// TestImageUser holds the user of the pods against that of the images, whose
// files it must be able to use.
func TestImageUser(t *testing.T) {
	raw, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	users := regexp.MustCompile(`(?m)^USER (\d+):(\d+)$`).FindAllSubmatch(raw, -1)
	if len(users) == 0 {
		t.Fatal("the Dockerfile sets no user by number")
	}
	r := mustRender(t, "hub", "fleetcast", readValues(t, "hub/ci/minimal-values.yaml"))
	for _, u := range r.objects {
		template := podTemplate(t, u)
		if template == nil {
			continue
		}
		security := template.Spec.SecurityContext
		for _, user := range users {
			if got := strconv.FormatInt(*security.RunAsUser, 10); got != string(user[1]) {
				t.Errorf("pods run as user %s, images as %s", got, user[1])
			}
		}
	}
}
