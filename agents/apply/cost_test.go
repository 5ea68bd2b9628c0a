package apply_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// warm applies a work, so that the kinds are known and the watches stand.
func (c *cluster) warm() {
	c.Helper()
	c.run()
	w := c.newWork("warm", c.configMap("warm", nil))
	c.until("the watches stand", func() bool {
		w.mustApply()
		return len(c.wire.requests()) == 0
	})
}

// Works that did not change cost no request, however often they are delivered or
// gone through.
func TestResyncCostsNothing(t *testing.T) {
	const works, objects = 100, 10
	c := newCluster(t)
	c.warm()
	all := make([]*story, works)
	for i := range all {
		var manifests []any
		for j := range objects {
			manifests = append(manifests, c.configMap(fmt.Sprintf("work-%d-%d", i, j), map[string]string{"key": "value"}))
		}
		all[i] = c.newWork(fmt.Sprintf("work-%d", i), manifests...)
		all[i].mustApply()
	}
	for _, w := range all {
		w.mustApply() // Completes the list of what it has.
	}
	c.wire.requests()
	for _, w := range all {
		if got := condition(w.mustApply(), workv1.WorkApplied); got != workApplied {
			t.Fatalf("%s: Applied = %s", w.work.Name, got)
		}
		w.observe()
	}
	if got := c.wire.requests(); len(got) > 0 {
		t.Errorf("%d works of %d objects without change cost %d requests, the first %s", works, objects, len(got), got[0])
	}
}

// What docs/performance.md says that works cost.
func TestRequestsPerWork(t *testing.T) {
	c := newCluster(t)
	c.warm()
	const (
		owners = "/apis/work.open-cluster-management.io/v1/appliedmanifestworks"
		maps   = "/api/v1/namespaces/NAMESPACE/configmaps"
	)
	w := c.newWork("web", c.configMap("a", nil), c.configMap("b", nil))
	owner := owners + "/" + w.appliedName()
	for _, step := range []struct {
		reason string
		do     func()
		want   []string
	}{
		{
			"a new work: its list, its objects, and nothing to find out that it is new",
			func() { w.mustApply() },
			[]string{"POST " + owners, "POST " + maps, "POST " + maps},
		},
		{
			"later: the list with the UIDs of the objects, for its readers",
			func() { w.mustApply() },
			[]string{"PATCH " + owner + "/status"},
		},
		{"nothing changed", func() { w.mustApply() }, nil},
		{
			"one object changed: it is read to be compared, and put",
			func() {
				w.set(c.configMap("a", map[string]string{"key": "value"}), c.configMap("b", nil))
				w.mustApply()
			},
			[]string{"GET " + maps + "/a", "PUT " + maps + "/a"},
		},
		{
			"one object more: it is listed before it is there",
			func() {
				w.set(c.configMap("a", map[string]string{"key": "value"}), c.configMap("b", nil), c.configMap("c", nil))
				w.mustApply()
			},
			[]string{"PATCH " + owner + "/status", "GET " + maps + "/c", "POST " + maps},
		},
		{"later: its UID", func() { w.mustApply() }, []string{"PATCH " + owner + "/status"}},
	} {
		c.wire.requests()
		step.do()
		got := c.wire.requests()
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], c.namespace+"/configmaps", "NAMESPACE/configmaps")
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", step.reason, diff)
		}
		c.until("the watch has caught up", func() bool { w.observe(); return len(c.wire.requests()) == 0 })
	}
}

// An agent that dies before any of its requests, or to one of whose requests the
// answer is lost, leaves nothing that is not known afterwards, whether the same
// work comes next, one that dropped an object, or its deletion.
func TestBrokenAtAnyRequest(t *testing.T) {
	const mostRequests = 6
	for name, then := range map[string]func(*story){
		"the same work": func(w *story) {
			w.mustApply()
			w.mustApply()
			if diff := cmp.Diff([]string{"configmaps/a", "configmaps/b"}, w.inventory()); diff != "" {
				w.Errorf("inventory (-want +got):\n%s", diff)
			}
		},
		"an object less": func(w *story) {
			w.set(w.configMap("b", nil))
			w.mustApply()
			if w.get(configMaps, w.namespace, "a") != nil {
				w.Error("a is an orphan")
			}
			if diff := cmp.Diff([]string{"configmaps/b"}, w.inventory()); diff != "" {
				w.Errorf("inventory (-want +got):\n%s", diff)
			}
		},
		"the deletion": func(*story) {}, // It comes after the others as well.
	} {
		t.Run("killed, "+name, func(t *testing.T) {
			newCluster(t).breakEach(mostRequests, func(c *cluster, request int) {
				c.wire.cut(func(*http.Request) bool { request--; return request < 0 })
			}, func(c *cluster, stop func()) {
				stop()
				c.restart(apply.Options{})
			}, then)
		})
		t.Run("unanswered, "+name, func(t *testing.T) {
			newCluster(t).breakEach(mostRequests, func(c *cluster, request int) {
				c.wire.unanswer(func(*http.Request) bool { request--; return request == -1 })
			}, func(c *cluster, _ func()) {
				c.wire.unanswer(nil)
			}, then)
		})
	}
}

// breakEach applies a work once for each request that this takes, breaks that
// request, mends it, and goes on.
func (c *cluster) breakEach(most int, broken func(c *cluster, request int), mended func(c *cluster, stop func()), then func(*story)) {
	c.Helper()
	for request := range most {
		c.restart(apply.Options{})
		stop := c.run()
		warm := c.newWork(fmt.Sprint("warm-", request), c.configMap("warm", nil))
		c.until("the watches stand", func() bool { c.wire.requests(); warm.mustApply(); return len(c.wire.requests()) == 0 })
		w := c.newWork(fmt.Sprint("web-", request), c.configMap("a", nil), c.configMap("b", nil))
		broken(c, request)
		if _, err := w.apply(); err == nil {
			_, _ = w.apply() // Completes the list, or finds the wire broken.
		}
		mended(c, stop)
		then(w)
		if _, err := w.delete(); err != nil {
			c.Fatalf("Delete after request %d was broken: %v", request, err)
		}
		for _, object := range []string{"a", "b"} {
			if c.get(configMaps, c.namespace, object) != nil {
				c.Errorf("%s is an orphan after request %d was broken", object, request)
			}
		}
		if w.appliedWork() != nil {
			c.Errorf("the AppliedManifestWork is still there after request %d was broken", request)
		}
		stop()
	}
}
