package apply_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// A ledger knows what the test tells it.
type ledger struct {
	mu      sync.Mutex
	holds   map[string]bool
	deleted map[string]bool
	asked   int
}

func newLedger() *ledger {
	return &ledger{holds: map[string]bool{}, deleted: map[string]bool{}}
}

func (l *ledger) Fate(_, id string) (held, deleted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.holds[id], !l.holds[id] && l.deleted[id]
}

func (l *ledger) tell(change func(*ledger)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

// rounds waits until the applier has looked at its works that often.
func (l *ledger) rounds(c *cluster, n int) {
	c.Helper()
	before := l.looked()
	c.until("the applier looked at its works again", func() bool { return l.looked() >= before+n })
}

func (l *ledger) looked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// lines is a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// gauge is the value of a metric with one label.
func gauge(t *testing.T, r *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return valueOf(m)
			}
		}
	}
	t.Fatalf("no metric %s of %s", name, label)
	return 0
}

func valueOf(m *dto.Metric) float64 { return m.GetGauge().GetValue() + m.GetCounter().GetValue() }

// evicting is a cluster with a work that the agent applied and holds no more.
func evicting(t *testing.T, grace time.Duration) (*cluster, *story, *ledger, *lines, *prometheus.Registry) {
	t.Helper()
	c, l, log, registry := newCluster(t), newLedger(), &lines{}, prometheus.NewRegistry()
	c.restart(apply.Options{Ledger: l, EvictionGrace: grace, Log: log.logger(), Registerer: registry})
	w := c.newWork("web", c.configMap("a", nil), c.configMap("shared", nil))
	l.tell(func(l *ledger) { l.holds["web-id"] = true })
	w.mustApply()
	c.patch(configMaps, c.namespace, "shared", `{"metadata":{"ownerReferences":null}}`)
	l.tell(func(l *ledger) { l.holds["web-id"] = false })
	return c, w, l, log, registry
}

func TestEviction(t *testing.T) {
	const grace = 3 * time.Second
	t.Run("of what was deleted", func(t *testing.T) {
		c, w, l, log, _ := evicting(t, grace)
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		began := time.Now()
		c.run()
		c.until("the eviction has begun", func() bool {
			now := w.appliedWork()
			return now != nil && now.Status.EvictionStartTime != nil
		})
		c.until("it is gone", func() bool { return w.appliedWork() == nil })
		if took := time.Since(began); took < grace {
			t.Errorf("it was evicted after %v, which is before the grace period", took)
		}
		if c.get(configMaps, c.namespace, "a") != nil {
			t.Error("its object is still there")
		}
		if c.get(configMaps, c.namespace, "shared") == nil {
			t.Error("an object that it did not own is gone")
		}
		if got := log.String(); !strings.Contains(got, "removed after the grace period") || !strings.Contains(got, "work=web-id") {
			t.Errorf("the log says nothing of it: %s", got)
		}
	})
	t.Run("of a work that comes back", func(t *testing.T) {
		c, w, l, _, _ := evicting(t, time.Hour)
		c.restart(apply.Options{Ledger: l, EvictionGrace: grace})
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		c.run()
		c.until("the eviction has begun", func() bool { return w.appliedWork().Status.EvictionStartTime != nil })
		l.tell(func(l *ledger) { l.holds["web-id"] = true })
		c.until("the eviction has ended", func() bool { return w.appliedWork().Status.EvictionStartTime == nil })
		l.rounds(c, 20)
		if c.get(configMaps, c.namespace, "a") == nil {
			t.Error("its object is gone")
		}
	})
	t.Run("of what nobody knows", func(t *testing.T) {
		for name, tell := range map[string]func(*ledger){
			"nothing is known":         func(*ledger) {},
			"another work was deleted": func(l *ledger) { l.deleted["id"] = true },
		} {
			t.Run(name, func(t *testing.T) {
				c, w, l, log, registry := evicting(t, 100*time.Millisecond)
				l.tell(tell)
				c.run()
				l.rounds(c, 20)
				if now := w.appliedWork(); now == nil || now.Status.EvictionStartTime != nil {
					t.Errorf("AppliedManifestWork %v, want it untouched", now)
				}
				if got := gauge(t, registry, "fleetcast_agent_orphaned_works", "kept"); got != 1 {
					t.Errorf("%v works are said to be kept, want 1", got)
				}
				if got := strings.Count(log.String(), "they stay"); got != 1 {
					t.Errorf("it is told %d times, want once", got)
				}
			})
		}
	})
	t.Run("waits while it is not certain", func(t *testing.T) {
		c, w, l, _, _ := evicting(t, 2*time.Second)
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		c.run()
		c.until("the eviction has begun", func() bool { return w.appliedWork().Status.EvictionStartTime != nil })
		l.tell(func(l *ledger) { l.deleted = map[string]bool{} })
		l.rounds(c, 40) // More than the grace period.
		if w.appliedWork() == nil {
			t.Fatal("it was evicted in doubt")
		}
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		c.until("it is gone", func() bool { return w.appliedWork() == nil })
	})
	t.Run("of another agent's", func(t *testing.T) {
		c, w, l, _, _ := evicting(t, time.Hour)
		c.restart(apply.Options{AgentID: "another", Ledger: l, EvictionGrace: 100 * time.Millisecond})
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		own := c.newWork("own", c.configMap("b", nil))
		l.tell(func(l *ledger) { l.holds["own-id"] = true })
		own.mustApply()
		c.run()
		l.rounds(c, 20)
		if now := w.appliedWork(); now == nil || now.Status.EvictionStartTime != nil {
			t.Errorf("AppliedManifestWork %v, want it untouched", now)
		}
	})
	for name, annotation := range map[string]string{"another cluster name": `"former"`, "no cluster name": "null"} {
		t.Run("of "+name, func(t *testing.T) {
			c, w, l, _, _ := evicting(t, time.Hour)
			c.patch(appliedWorks, "", w.appliedName(), `{"metadata":{"annotations":{"work.fleetcast.io/cluster":`+annotation+`}}}`)
			registry := prometheus.NewRegistry()
			c.restart(apply.Options{Ledger: l, EvictionGrace: 100 * time.Millisecond, Registerer: registry})
			l.tell(func(l *ledger) { l.deleted["web-id"] = true })
			own := c.newWork("own", c.configMap("b", nil))
			l.tell(func(l *ledger) { l.holds["own-id"] = true })
			own.mustApply()
			c.run()
			l.rounds(c, 20)
			if now := w.appliedWork(); now == nil || now.Status.EvictionStartTime != nil {
				t.Errorf("AppliedManifestWork %v, want it untouched", now)
			}
			if got := gauge(t, registry, "fleetcast_agent_orphaned_works", "kept"); got != 1 {
				t.Errorf("%v works are said to be kept, want 1", got)
			}
		})
	}
	t.Run("that was begun long ago by the clock", func(t *testing.T) {
		c, w, l, _, _ := evicting(t, time.Hour)
		_, err := c.of(appliedWorks, "").Patch(c.ctx, w.appliedName(), types.MergePatchType,
			[]byte(`{"status":{"evictionStartTime":"2001-01-01T00:00:00Z"}}`), metav1.PatchOptions{}, "status")
		if err != nil {
			t.Fatal(err)
		}
		c.restart(apply.Options{Ledger: l, EvictionGrace: 10 * time.Second})
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		c.run()
		l.rounds(c, 3)
		if w.appliedWork() == nil {
			t.Error("a clock that jumped used the grace period up")
		}
	})
	t.Run("over restarts", func(t *testing.T) {
		c, w, l, _, _ := evicting(t, time.Hour)
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		for range 20 {
			c.restart(apply.Options{Ledger: l, EvictionGrace: 2 * time.Second})
			stop := c.run()
			from := l.looked()
			c.until("it looked again, or all is gone", func() bool { return l.looked() >= from+4 || w.appliedWork() == nil })
			stop()
			if w.appliedWork() == nil {
				return
			}
		}
		t.Error("an agent that is restarted often never evicts")
	})
	t.Run("by hand", func(t *testing.T) {
		c, w, _, _, _ := evicting(t, time.Second)
		c.remove(appliedWorks, "", w.appliedName())
		c.run()
		c.until("it is gone", func() bool { return w.appliedWork() == nil })
		if c.get(configMaps, c.namespace, "a") != nil {
			t.Error("its object is still there")
		}
	})
	t.Run("switched off", func(t *testing.T) {
		c, w, l, _, _ := evicting(t, apply.NeverEvict)
		l.tell(func(l *ledger) { l.deleted["web-id"] = true })
		stop := c.run()
		stop()
		if l.asked != 0 || w.appliedWork() == nil {
			t.Error("something was looked for")
		}
	})
}

// A work comes while what was left of it is being removed.
func TestEvictionWaitsForNobody(t *testing.T) {
	c, w, l, _, _ := evicting(t, 100*time.Millisecond)
	c.patch(configMaps, c.namespace, "a", blocker)
	l.tell(func(l *ledger) { l.deleted["web-id"] = true })
	c.run()
	c.until("it is on its way out", func() bool { return w.appliedWork().DeletionTimestamp != nil })
	l.tell(func(l *ledger) { l.holds["web-id"] = true })
	c.patch(configMaps, c.namespace, "a", `{"metadata":{"finalizers":null}}`)
	c.until("the work is applied again", func() bool {
		_, err := w.apply()
		return err == nil
	})
	now := w.appliedWork()
	if now == nil || now.DeletionTimestamp != nil || c.get(configMaps, c.namespace, "a") == nil {
		t.Errorf("AppliedManifestWork %v, want it there with its objects", now)
	}
}

// Two agents of one hub on one API server, under two cluster names, whose works
// have the same names and even IDs, leave each other's alone.
func TestWorksOfAnotherClusterName(t *testing.T) {
	for name, id := range map[string]string{"the same ID": "web-id", "another ID": "other-id"} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.newWork("web", c.configMap("a", nil)).mustApply()
			c.restart(apply.Options{Cluster: "cluster2"})
			w := c.newWork("web", c.configMap("b", nil))
			w.work.UID = types.UID(id)
			status, err := w.apply()
			if err == nil || !strings.Contains(err.Error(), "taken by a work of cluster cluster1") {
				t.Errorf("Apply: %v, status %v, want it refused", err, status.Conditions)
			}
			if _, err := w.delete(); err != nil {
				t.Errorf("Delete: %v", err)
			}
			if now := w.appliedWork(); now == nil || now.DeletionTimestamp != nil || c.get(configMaps, c.namespace, "a") == nil {
				t.Errorf("AppliedManifestWork %v, want it there with its object", now)
			}
			c.patch(appliedWorks, "", w.appliedName(), `{"metadata":{"annotations":{"work.fleetcast.io/cluster":"cluster2"}}}`)
			w.work.DeletionTimestamp = nil
			w.mustApply()
			if c.get(configMaps, c.namespace, "a") != nil || c.get(configMaps, c.namespace, "b") == nil {
				t.Error("the work did not take over what it was given")
			}
		})
	}
}
