package kube_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// A fleet is the cluster of a test, run by the project's own agent.
type fleet struct {
	mu   sync.Mutex
	runs map[string]bool // By ID of the work.
}

// join runs an agent on the hub's broker until the test ends.
func join(t *testing.T, cluster string, broker *mem.Broker) *fleet {
	t.Helper()
	f := &fleet{runs: map[string]bool{}}
	store, err := agents.OpenDisk(filepath.Join(t.TempDir(), "agent.db"), cluster)
	if err != nil {
		t.Fatal(err)
	}
	transport := broker.Open(brokers.Config{Role: brokers.RoleAgent, Name: cluster})
	a, err := agents.New(cluster, store, f, transport, agents.Options{
		Sources: []string{sourceID}, Quiet: 50 * time.Millisecond, HeartbeatInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, store.Close()); err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	return f
}

func (f *fleet) set(id string, runs bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.runs[id] = runs; !runs {
		delete(f.runs, id)
	}
}

func (f *fleet) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[id]
}

// Apply implements agents.Applier.
func (f *fleet) Apply(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	f.set(b.ID, true)
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{applied(b.Generation)}})
}

// Observe implements agents.Applier.
func (f *fleet) Observe(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{applied(b.Generation)}})
}

// Delete implements agents.Applier.
func (f *fleet) Delete(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	f.set(b.ID, false)
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{gone()}})
}

// awaitAgent waits until the hub's record of its cluster is as holds wants it.
func (h *hub) awaitAgent(what string, holds func(*v1alpha1.Agent) bool) *v1alpha1.Agent {
	h.t.Helper()
	var out *v1alpha1.Agent
	h.eventually(what, func() error {
		a, err := h.agentObject()
		if err == nil && !holds(a) {
			err = fmt.Errorf("status %+v", a.Status)
		}
		out = a
		return err
	})
	return out
}

func inSync(a *v1alpha1.Agent) bool {
	return meta.IsStatusConditionTrue(a.Status.Conditions, api.ConditionOnline) &&
		meta.IsStatusConditionTrue(a.Status.Conditions, api.ConditionInSync)
}

// TestEmptyHubDeletesNothing: a hub that lost all it knew finds a cluster that
// holds works of it. They stay and are shown, until an operator names one.
func TestEmptyHubDeletesNothing(t *testing.T) {
	broker, cluster := mem.NewBroker(mem.Options{}), apitest.Shared(t).Namespace(t)
	first := startHubWith(t, cluster, broker, kube.Options{})
	f := join(t, cluster, broker)
	var ids []string
	for _, name := range []string{"one", "two", "three"} {
		ids = append(ids, string(first.create(name).UID))
	}
	first.awaitAgent("the cluster has all works", func(a *v1alpha1.Agent) bool {
		return inSync(a) && !slices.ContainsFunc(ids, func(id string) bool { return !f.has(id) })
	})
	first.stop()
	for _, name := range []string{"one", "two", "three"} {
		first.removeByForce(name)
	}
	agent, err := first.agentObject()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Delete(t.Context(), agent); err != nil {
		t.Fatal(err)
	}

	h := startHubWith(t, cluster, broker, kube.Options{})
	agent = h.awaitAgent("all works are unclaimed, and that is in sync", func(a *v1alpha1.Agent) bool {
		return len(a.Status.Unclaimed) == len(ids) && inSync(a)
	})
	for _, u := range agent.Status.Unclaimed {
		if !slices.Contains(ids, u.ID) || u.Generation != 1 || !f.has(u.ID) {
			t.Errorf("unclaimed %+v; the cluster has it: %t", u, f.has(u.ID))
		}
	}

	h.ask(ids[0])
	agent = h.awaitAgent("the one is gone", func(a *v1alpha1.Agent) bool {
		return a.Status.UnclaimedCount == 2 && len(a.Spec.Delete) == 0 && !f.has(ids[0]) && inSync(a)
	})
	for _, id := range ids[1:] {
		if !f.has(id) {
			t.Errorf("work %s was deleted, too", id)
		}
	}
	if got := agent.Status.Tombstones; len(got) != 1 || got[0].ID != ids[0] {
		t.Errorf("tombstones %v, want that of %s", got, ids[0])
	}
}

// TestBeatsCostNoWrites: an agent that shows that it is there, again and again,
// makes the hub write nothing.
func TestBeatsCostNoWrites(t *testing.T) {
	broker, cluster := mem.NewBroker(mem.Options{}), apitest.Shared(t).Namespace(t)
	h := startHubWith(t, cluster, broker, kube.Options{})
	join(t, cluster, broker)
	w := h.create("web")
	h.awaitAgent("in sync", func(a *v1alpha1.Agent) bool { return inSync(a) && h.held()[string(w.UID)].Reported == 1 })

	beats, cancel := context.WithCancel(t.Context())
	defer cancel()
	counter := broker.Open(brokers.Config{Role: brokers.RoleSource, Name: "listener"})
	heard := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		done <- counter.Subscribe(beats, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToSource, Source: sourceID, Cluster: cluster}},
			Ready:   func(brokers.Session) {},
			Handle: func(_ context.Context, in brokers.Delivery) {
				if _, m, err := codec.Decode(in.Event); err == nil {
					if _, ok := m.(codec.Presence); ok {
						select {
						case heard <- struct{}{}:
						default:
						}
					}
				}
				in.Done(nil)
			},
		})
	}()
	// What the first reports made the hub write may still be under way.
	h.eventually("twenty beats in a row that cost nothing", func() error {
		before := h.writes.of("manifestworks/status") + h.writes.of("agents/status") + h.writes.of("agents")
		for range 20 {
			select {
			case <-heard:
			case <-time.After(patience):
				t.Fatal("the agent does not beat")
			}
		}
		after := h.writes.of("manifestworks/status") + h.writes.of("agents/status") + h.writes.of("agents")
		if after != before {
			return fmt.Errorf("%d writes", after-before)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
