package apply_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

func TestDriftIsToldAndPutBack(t *testing.T) {
	c := newCluster(t)
	c.run()
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}))
	w.mustApply()

	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"2"}}`)
	c.untilTold("web-id")
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "1"}, c.data("a")); diff != "" {
		t.Errorf("data after a change (-want +got):\n%s", diff)
	}

	c.remove(configMaps, c.namespace, "a")
	c.until("the object is back", func() bool {
		c.untilTold("web-id")
		w.mustApply()
		return c.get(configMaps, c.namespace, "a") != nil
	})
}

func TestDriftWhileTheAgentWasAway(t *testing.T) {
	c := newCluster(t)
	stop := c.run()
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.configMap("b", nil))
	w.mustApply()
	stop()
	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"2"}}`)
	c.remove(configMaps, c.namespace, "b")
	c.run()
	c.untilTold("web-id")
	c.until("both are back", func() bool {
		w.mustApply()
		return c.data("a")["x"] == "1" && c.get(configMaps, c.namespace, "b") != nil
	})
}

func TestForeignObjectsTellNobody(t *testing.T) {
	c := newCluster(t)
	c.run()
	w := c.newWork("web", c.configMap("a", nil))
	w.mustApply()
	c.until("the watch vouches for the object", func() bool {
		c.wire.requests()
		w.mustApply()
		return len(c.wire.requests()) == 0
	})
	for len(c.changed) > 0 {
		<-c.changed
	}
	for _, name := range []string{"foreign", "foreign2"} {
		u := &unstructured.Unstructured{Object: c.configMap(name, nil)}
		delete(u.Object, "data")
		if _, err := c.of(configMaps, c.namespace).Create(c.ctx, u, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// The change of our own object comes after those of the foreign ones.
	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"2"}}`)
	c.untilTold("web-id")
	if n := len(c.changed); n > 0 {
		t.Errorf("told %d times more than there was something to tell", n)
	}
}

// An AppliedManifestWork that is deleted by hand takes its objects with it;
// the work, which still stands, brings them back.
func TestDeletedAppliedManifestWorkComesBack(t *testing.T) {
	c := newCluster(t)
	c.run()
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}))
	w.mustApply()
	was := w.appliedWork().UID
	c.remove(appliedWorks, "", w.appliedName())
	c.untilTold("web-id")
	c.until("the work is applied anew", func() bool {
		_, err := w.apply()
		return err == nil && w.appliedWork() != nil && w.appliedWork().UID != was
	})
	refs := c.get(configMaps, c.namespace, "a").GetOwnerReferences()
	if len(refs) != 1 || refs[0].UID != w.appliedWork().UID {
		t.Errorf("owners = %v", refs)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	c := newCluster(t)
	w := c.newWork("web", c.configMap("a", nil))
	w.mustApply()
	// What the clients' connection pools keep is there before and after.
	before := goleak.IgnoreCurrent()
	stop := c.run()
	c.until("the watch vouches for the object", func() bool {
		c.wire.requests()
		w.mustApply()
		return len(c.wire.requests()) == 0
	})
	if _, err := w.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	stop()
	goleak.VerifyNone(t, before)
}

// Beyond the limit of watches, works are told to look at intervals.
func TestBeyondTheLimitOfWatches(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{MaxWatches: 1, Recheck: 50 * time.Millisecond})
	c.run()
	w := c.newWork("web", c.configMap("a", map[string]string{"x": "1"}), c.service("s"))
	w.mustApply()
	c.patch(configMaps, c.namespace, "a", `{"data":{"x":"2"}}`)
	c.untilTold("web-id")
	w.mustApply()
	if diff := cmp.Diff(map[string]string{"x": "1"}, c.data("a")); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}

// A watch may be silent for ever without an error, so its word is not taken for
// longer than Verify.
func TestTheWordOfAWatchGrowsOld(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{Verify: time.Nanosecond})
	c.run()
	w := c.newWork("web", c.configMap("a", nil))
	w.mustApply()
	c.wire.requests()
	w.mustApply()
	path := "GET /api/v1/namespaces/" + c.namespace + "/configmaps/a"
	if got := c.wire.requests(); !slices.Contains(got, path) {
		t.Errorf("requests = %v, want the object read again", got)
	}
}
