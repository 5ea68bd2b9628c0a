package apply_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// silent is after how long the applier gives up a request in these tests.
const silent = 2 * time.Second

// A load balancer that lost its server takes requests and answers none of them.
func TestDiscoveryWithoutAnAnswerEnds(t *testing.T) {
	c := newCluster(t)
	_, instance, served := c.widget("Mute")
	c.restart(apply.Options{Timeout: silent})
	c.wire.silence(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/apis/"+served.Group) })
	w := c.newWork("web", instance, c.configMap("a", nil))
	told := make(chan workv1.ManifestWorkStatus, 1)
	go func() {
		status, err := w.apply()
		if err == nil {
			t.Error("Apply did not ask for another try")
		}
		told <- status
	}()
	select {
	case status := <-told:
		if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
			t.Errorf("Applied of the instance = %s", got)
		}
		if got := manifestCondition(status, 1, workv1.ManifestApplied); got != manifestApplied {
			t.Errorf("Applied of the config map = %s", got)
		}
	case <-time.After(patience):
		t.Fatal("a question about kinds that is not answered holds its work for ever")
	}
}

func TestWatchWithoutAnAnswerIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		reason string
		mute   func(*http.Request) bool
	}{
		{"neither lists nor watches are answered", func(*http.Request) bool { return true }},
		{"lists are answered", func(r *http.Request) bool { return r.URL.Query().Get("watch") == "true" }},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := newCluster(t)
			c.restart(apply.Options{Timeout: silent})
			asked := make(chan struct{}, 100)
			c.wire.silence(func(r *http.Request) bool {
				q := r.URL.Query()
				all := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/configmaps") && (q.Has("watch") || q.Has("limit") || q.Has("resourceVersion"))
				if !all || !tt.mute(r) {
					return false
				}
				select {
				case asked <- struct{}{}:
				default:
				}
				return true
			})
			w := c.newWork("web", c.configMap("a", map[string]string{"k": "v"}))
			w.mustApply()
			c.run()
			<-asked
			c.wire.silence(nil)
			c.until("the watch vouches for the object", func() bool {
				c.wire.requests()
				w.mustApply()
				return len(c.wire.requests()) == 0
			})
		})
	}
}

// Where the kind is served already, an API server that refuses writes does not
// keep the agent from starting.
func TestInstalledCRDIsNotWritten(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{})
	c.wire.cut(func(r *http.Request) bool { return r.Method != http.MethodGet })
	if err := c.applier.InstallCRD(c.ctx); err != nil {
		t.Errorf("InstallCRD where it is installed: %v", err)
	}
}
