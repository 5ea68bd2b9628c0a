package apply_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func TestConformanceApply(t *testing.T) {
	t.Run("Scope_fix", func(t *testing.T) {
		c := newCluster(t)
		role := map[string]any{
			"apiVersion": rbac + "/v1", "kind": "ClusterRole",
			"metadata": map[string]any{"name": c.namespace, "namespace": c.namespace},
		}
		w := c.newWork("web", role)
		status := w.mustApply()
		t.Cleanup(func() { _, _ = w.delete() })
		if got := status.ResourceStatus.Manifests[0].ResourceMeta.Namespace; got != "" {
			t.Errorf("namespace of a cluster role = %q", got)
		}
		if c.get(resourceOf(rbac, "v1", "clusterroles"), "", c.namespace) == nil {
			t.Error("it was not applied")
		}
	})

	t.Run("Conflict_retry", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}))
		w.mustApply()
		w.set(c.configMap("a", map[string]string{"x": "2"}))
		others := 2 // Who are faster.
		c.wire.cut(func(r *http.Request) bool {
			if r.Method == http.MethodPut && others > 0 {
				others--
				c.patch(configMaps, c.namespace, "a", `{"metadata":{"annotations":{"n":"`+strconv.Itoa(others)+`"}}}`)
			}
			return false
		})
		status := w.mustApply()
		if got := condition(status, workv1.WorkApplied); got != workApplied || c.data("a")["x"] != "2" {
			t.Errorf("Applied = %s, data = %v", got, c.data("a"))
		}
		if got := len(c.wire.writes()); got < 3 {
			t.Errorf("%d writes: nobody was in the way", got)
		}
	})

	t.Run("Resync", func(t *testing.T) {
		c := newCluster(t)
		c.run()
		var manifests []any
		for i := range 10 {
			manifests = append(manifests, c.configMap("a"+strconv.Itoa(i), map[string]string{"x": "1"}))
		}
		w := c.newWork("web", manifests...)
		w.mustApply()
		c.until("the watch vouches for all objects", func() bool {
			c.wire.requests()
			w.mustApply()
			return len(c.wire.requests()) == 0
		})
		for len(c.changed) > 0 {
			<-c.changed
		}
		c.patch(configMaps, c.namespace, "a3", `{"data":{"x":"2"}}`)
		c.untilTold("web-id")
		w.mustApply()
		path := "/api/v1/namespaces/" + c.namespace + "/configmaps/a3"
		if diff := cmp.Diff([]string{"GET " + path, "PUT " + path}, c.wire.requests()); diff != "" {
			t.Errorf("requests for one change among ten objects (-want +got):\n%s", diff)
		}
		if got := c.data("a3")["x"]; got != "1" {
			t.Errorf("x = %q", got)
		}
	})

	t.Run("Spec_label_change", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.configMap("a", nil))
		w.mustApply()
		was := c.get(configMaps, c.namespace, "a").GetResourceVersion()
		w.work.Labels = map[string]string{"team": "red"}
		w.mustApply()
		if got := w.appliedWork().Labels["team"]; got != "red" {
			t.Errorf("label of the AppliedManifestWork = %q", got)
		}
		if got := c.get(configMaps, c.namespace, "a").GetResourceVersion(); got != was {
			t.Error("the object was written for a label of its work")
		}
	})
}

func TestConformanceStatusOfApply(t *testing.T) {
	t.Run("hash_annotations", func(t *testing.T) {
		c := newCluster(t)
		w := c.newWork("web", c.deployment("d", 1), c.configMap("a", nil), c.service("s"))
		w.strategy(serverSide(workv1.ServerSideApplyConfig{}), "", "services")
		w.mustApply()
		hash := func(u metav1.Object) string { return u.GetAnnotations()[api.SpecHashAnnotation] }
		if hash(c.get(deployments, c.namespace, "d")) == "" || hash(c.get(services, c.namespace, "s")) == "" {
			t.Error("an object that is not compared exactly has no hash of its manifest")
		}
		if got := hash(c.get(configMaps, c.namespace, "a")); got != "" {
			t.Errorf("a config map, which is compared exactly, has the hash %s", got)
		}
	})

	t.Run("Events", func(t *testing.T) {
		c := newCluster(t)
		var said bytes.Buffer
		c.restart(apply.Options{Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		w := c.newWork("web", c.configMap("a", map[string]string{"x": "the-content"}))
		w.mustApply()
		w.set(c.configMap("a", map[string]string{"x": "other-content"}))
		w.mustApply()
		lines := slices.DeleteFunc(strings.Split(said.String(), "\n"), func(l string) bool { return !strings.Contains(l, "object written") })
		if len(lines) != 2 || !strings.Contains(lines[0], "created") || !strings.Contains(lines[1], "configured") {
			t.Errorf("said %q", lines)
		}
		if strings.Contains(said.String(), "content") {
			t.Error("the log quotes an object")
		}
	})
}
