package kube_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

func (h *hub) makeNamespace() {
	h.t.Helper()
	if err := h.Create(h.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.cluster}}); err != nil {
		h.t.Fatal(err)
	}
}

// states is what the source has of the agents of the test's cluster.
func (h *hub) states() int {
	h.t.Helper()
	all, err := h.source.Agents(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	n := 0
	for _, s := range all {
		if s.Cluster == h.cluster {
			n++
		}
	}
	return n
}

// TestNamespaceMadeLater: an agent that was heard before its cluster has a
// namespace is recorded once there is one.
func TestNamespaceMadeLater(t *testing.T) {
	for name, tc := range map[string]struct {
		look time.Duration
		work bool
	}{
		"the hub looks again":  {100 * time.Millisecond, false},
		"a work is made in it": {time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHubWith(t, apitest.Shared(t).Namespace(t)+"-later", mem.NewBroker(mem.Options{}), kube.Options{})
			h.source.LookAgain(tc.look)
			s := h.state()
			h.save(s)
			if got := h.writes.of("agents/status"); got != 0 || h.states() != 1 {
				t.Errorf("without a namespace %d statuses were written and %d are remembered, want the one", got, h.states())
			}
			h.makeNamespace()
			if tc.work {
				h.create("web")
			}
			h.awaitAgent("there is a record", func(a *v1alpha1.Agent) bool { return a.Status.Agent == s.Agent })
		})
	}
}

// TestOfflineWithoutNamespace: a cluster of which there is nothing any more is
// forgotten, and costs nothing.
func TestOfflineWithoutNamespace(t *testing.T) {
	h := startHubWith(t, apitest.Shared(t).Namespace(t)+"-unheard-of", mem.NewBroker(mem.Options{}), kube.Options{})
	s := h.state()
	h.save(s)
	s.Online = false
	if err := h.source.SaveAgent(t.Context(), s); !errors.Is(err, sources.ErrNoCluster) {
		t.Errorf("%v, want %v", err, sources.ErrNoCluster)
	}
	if got := h.states(); got != 0 {
		t.Errorf("%d are remembered, want none", got)
	}
}

// TestNamespaceWaitsForItsCluster: a namespace that is being deleted does not take
// the deletions along that its cluster did not confirm.
func TestNamespaceWaitsForItsCluster(t *testing.T) {
	for name, byForce := range map[string]bool{"the cluster confirms": false, "an operator gives up": true} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, mem.Options{})
			h.source.Coalesce(100 * time.Millisecond)
			a := h.agent()
			h.save(h.state())
			w := h.create("web")
			a.takeGeneration(w)
			h.awaitAgent("the finalizer is on", func(a *v1alpha1.Agent) bool { return len(a.Finalizers) == 1 })
			if err := h.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.cluster}}); err != nil {
				t.Fatal(err)
			}
			h.removeByForce("web")
			deletion := a.take("the deletion", func(b codec.Bundle) bool { return b.Deleting() && b.ID == string(w.UID) })
			agent := h.awaitAgent("it is saved", func(a *v1alpha1.Agent) bool { return len(a.Status.Tombstones) == 1 && a.DeletionTimestamp != nil })
			c := meta.FindStatusCondition(agent.Status.Conditions, api.ConditionUnconfirmed)
			if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, api.AgentFinalizer) {
				t.Errorf("the condition does not say what the namespace waits for: %+v", c)
			}
			h = h.restart(kube.Options{})
			h.source.Coalesce(100 * time.Millisecond)
			if _, ok := h.held()[string(w.UID)]; !ok {
				t.Error("the deletion is forgotten after a restart")
			}
			if byForce {
				h.eventually("take the finalizer off", func() error {
					agent, err := h.agentObject()
					if err != nil {
						return err
					}
					agent.Finalizers = nil
					return h.Update(t.Context(), agent)
				})
			} else if got := h.report(a.reportOn(deletion, gone())); got != sources.Accepted {
				t.Errorf("Deleted: %s, want %s", got, sources.Accepted)
			}
			h.eventually("the record is gone", func() error {
				if _, err := h.agentObject(); !apierrors.IsNotFound(err) {
					return errors.Join(errors.New("still there"), err)
				}
				if held := h.held(); len(held) > 0 {
					return fmt.Errorf("held %v", held)
				}
				return nil
			})
		})
	}
}

// TestDeletionThatCannotBeSaved is told, and saved as soon as it can be.
func TestDeletionThatCannotBeSaved(t *testing.T) {
	log := &lines{}
	h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), kube.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	h.source.LookAgain(100 * time.Millisecond)
	a := h.agent() // Of OCM: nothing of it is recorded.
	w := h.create("web")
	a.takeGeneration(w)
	if err := h.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.cluster}}); err != nil {
		t.Fatal(err)
	}
	h.removeByForce("web")
	a.take("the deletion", func(b codec.Bundle) bool { return b.Deleting() && b.ID == string(w.UID) })
	h.eventually("the log says that it is not saved", func() error {
		if !strings.Contains(log.String(), "takes no Agent") {
			return errors.New(log.String())
		}
		return nil
	})
	h.eventually("the namespace is there again", func() error {
		return h.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.cluster}})
	})
	h.awaitAgent("it is saved", func(a *v1alpha1.Agent) bool { return len(a.Status.Tombstones) == 1 })
	if n := strings.Count(log.String(), "takes no Agent"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// lines is a log.
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
