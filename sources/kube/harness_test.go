package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

const sourceID = "hub1"

// patience is how long a test waits for what must happen.
const patience = time.Minute

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	apitest.Main(m, apitest.Hub)
}

// A hub is an API server, the source of its works and a running dispatcher.
type hub struct {
	client.Client

	t       *testing.T
	source  *kube.Source
	broker  *mem.Broker
	cluster string // A namespace of this test.
	stop    func() // Ends the hub in order, once.
	writes  writes

	mu      sync.Mutex
	changed int // How often the source named a work of cluster as changed.
}

// changes is how often the source named a work of the test's cluster.
func (h *hub) changes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// startHub runs a hub until the test ends.
func startHub(t *testing.T, o mem.Options) *hub {
	t.Helper()
	return startHubOf(t, apitest.Shared(t).Namespace(t), o)
}

// startHubOf is startHub for a cluster that has works already, as a restart is.
func startHubOf(t *testing.T, cluster string, o mem.Options) *hub {
	t.Helper()
	return startHubWith(t, cluster, mem.NewBroker(o), kube.Options{})
}

// restart ends the hub and starts the next one on its broker, where its agents
// still are.
func (h *hub) restart(o kube.Options) *hub {
	h.t.Helper()
	h.stop()
	return startHubWith(h.t, h.cluster, h.broker, o)
}

// startHubWith is startHubOf with a broker and options of the test's choice.
func startHubWith(t *testing.T, cluster string, broker *mem.Broker, o kube.Options) *hub {
	t.Helper()
	return startHubAt(t, apitest.Shared(t).Config(), cluster, broker, o)
}

// startHubAt is startHubWith on an API server of the test's choice.
func startHubAt(t *testing.T, cfg *rest.Config, cluster string, broker *mem.Broker, o kube.Options) *hub {
	t.Helper()
	scheme := api.NewScheme()
	direct, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{Client: direct, t: t, broker: broker, cluster: cluster}
	h.installCRDs()
	watched := rest.CopyConfig(cfg)
	watched.Wrap(h.writes.watch)
	mgr, err := manager.New(watched, manager.Options{
		Scheme: scheme, Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if h.source, err = kube.New(t.Context(), mgr, sourceID, o); err != nil {
		t.Fatal(err)
	}
	transport := h.broker.Open(brokers.Config{Role: brokers.RoleSource, Name: sourceID})
	d := sources.NewDispatcher(sourceID, h.source, transport, sources.Options{ComparePause: 50 * time.Millisecond})
	h.source.Notify(func(k sources.Key) {
		if k.Cluster == h.cluster {
			h.mu.Lock()
			h.changed++
			h.mu.Unlock()
		}
		d.Changed(k)
	})
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		saving, end := context.WithCancel(context.WithoutCancel(ctx))
		saved := make(chan error, 1)
		go func() { saved <- h.source.Run(saving) }()
		err := d.Run(ctx)
		end()
		return errors.Join(err, <-saved)
	})); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("manager: %v", err)
		}
		if err := transport.Close(context.Background()); err != nil {
			t.Errorf("close the hub's connection: %v", err)
		}
	})
	t.Cleanup(h.stop)
	h.eventually("the dispatcher runs", func() error {
		if !h.source.Loaded() {
			return errors.New("the source is not loaded")
		}
		return d.Ready()
	})
	return h
}

func (h *hub) installCRDs() {
	h.t.Helper()
	for kind, list := range map[string]client.ObjectList{
		"ManifestWork": &workv1.ManifestWorkList{}, "Agent": &v1alpha1.AgentList{},
	} {
		var name string
		for _, crd := range crds.Hub() {
			if crd.Spec.Names.Kind != kind {
				continue
			}
			name = crd.Name
			if err := h.Create(h.t.Context(), crd); err != nil && !apierrors.IsAlreadyExists(err) {
				h.t.Fatal(err)
			}
		}
		h.eventually("the CRD is served", func() error {
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := h.Get(h.t.Context(), client.ObjectKey{Name: name}, crd); err != nil {
				return err
			}
			for _, c := range crd.Status.Conditions {
				if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
					return h.List(h.t.Context(), list)
				}
			}
			return errors.New("not established")
		})
	}
}

// eventually fails the test if what does not become nil in time.
func (h *hub) eventually(what string, holds func() error) {
	h.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(h.t.Context(), 10*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = holds()
		return last == nil, nil
	})
	if err != nil {
		h.t.Fatalf("%s: not within %s: %v", what, patience, last)
	}
}

func (h *hub) create(name string) *workv1.ManifestWork {
	h.t.Helper()
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: h.cluster, Name: name}}
	w.Spec.Workload.Manifests = manifests("a")
	if err := h.Create(h.t.Context(), w); err != nil {
		h.t.Fatal(err)
	}
	return w
}

func manifests(data string) []workv1.Manifest {
	raw := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm","namespace":"default"},"data":{"k":%q}}`, data)
	return []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: []byte(raw)}}}
}

// get reads the work from the API server.
func (h *hub) get(name string) (*workv1.ManifestWork, error) {
	w := &workv1.ManifestWork{}
	err := h.Get(h.t.Context(), client.ObjectKey{Namespace: h.cluster, Name: name}, w)
	return w, err
}

func (h *hub) mustGet(name string) *workv1.ManifestWork {
	h.t.Helper()
	w, err := h.get(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return w
}

// change updates the work and returns it.
func (h *hub) change(name string, change func(*workv1.ManifestWork)) *workv1.ManifestWork {
	h.t.Helper()
	var out *workv1.ManifestWork
	h.eventually("change work "+name, func() error {
		w, err := h.get(name)
		if err != nil {
			return err
		}
		change(w)
		out = w
		return h.Update(h.t.Context(), w)
	})
	return out
}

// report gives the source a report directly and returns its verdict.
func (h *hub) report(r codec.Report) sources.Verdict {
	h.t.Helper()
	verdict, err := h.source.Report(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return verdict
}

// held returns what the source holds for the test's cluster, by ID.
func (h *hub) held() map[string]sources.Held {
	h.t.Helper()
	held, err := h.source.Held(h.t.Context(), h.cluster)
	if err != nil {
		h.t.Fatal(err)
	}
	byID := map[string]sources.Held{}
	for _, w := range held {
		byID[w.ID] = w
	}
	return byID
}

// An agent is the cluster's end of the broker, which only listens and says what
// the test wants.
type agent struct {
	t         *testing.T
	h         *hub
	transport brokers.Transport
	sequence  codec.Sequence

	mu      sync.Mutex
	bundles []codec.Bundle
	asked   map[string]string // The hash of each work's status in the last question for it.
}

func (h *hub) agent() *agent {
	h.t.Helper()
	a := &agent{t: h.t, h: h, asked: map[string]string{}, transport: h.broker.Open(brokers.Config{Role: brokers.RoleAgent, Name: h.cluster})}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		done <- a.transport.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToCluster, Source: sourceID, Cluster: h.cluster}},
			Ready:   func(brokers.Session) { once.Do(func() { close(ready) }) },
			Handle: func(_ context.Context, in brokers.Delivery) {
				_, m, err := codec.Decode(in.Event)
				if err != nil {
					a.t.Errorf("event from the hub: %v", err)
				}
				a.mu.Lock()
				defer a.mu.Unlock()
				switch m := m.(type) {
				case codec.Bundle:
					a.bundles = append(a.bundles, m)
				case codec.StatusResync:
					for _, h := range m.Hashes {
						a.asked[h.ID] = h.Hash
					}
				}
				in.Done(nil)
			},
		})
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("agent: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		h.t.Fatal("the agent does not connect")
	}
	return a
}

// take waits for a bundle that matches and forgets it and all before it.
func (a *agent) take(what string, matches func(codec.Bundle) bool) codec.Bundle {
	a.t.Helper()
	var out codec.Bundle
	a.h.eventually(what, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for i, b := range a.bundles {
			if matches(b) {
				out = b
				a.bundles = a.bundles[i+1:]
				return nil
			}
		}
		return fmt.Errorf("no such bundle among %d", len(a.bundles))
	})
	return out
}

func (a *agent) takeGeneration(w *workv1.ManifestWork) codec.Bundle {
	a.t.Helper()
	return a.take(fmt.Sprintf("work %s of generation %d", w.Name, w.Generation), func(b codec.Bundle) bool {
		return b.ID == string(w.UID) && b.Generation == w.Generation
	})
}

// awaitQuestion waits until the hub asks what differs from this report.
func (a *agent) awaitQuestion(r codec.Report) {
	a.t.Helper()
	a.h.eventually("the hub asks", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if hash := a.asked[r.ID]; hash != r.Hash {
			return fmt.Errorf("asked for what differs from %q", hash)
		}
		return nil
	})
}

// reportOn is the report of an agent on a bundle, later than those before.
func (a *agent) reportOn(b codec.Bundle, conditions ...metav1.Condition) codec.Report {
	a.t.Helper()
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: conditions})
	if err != nil {
		a.t.Fatal(err)
	}
	a.sequence = a.sequence.Next(time.Now())
	r.Agent, r.Sequence = a.h.cluster+"-agent", a.sequence
	return r
}

// send publishes a report.
func (a *agent) send(r codec.Report) {
	a.t.Helper()
	e, err := r.Encode(codec.Update)
	if err != nil {
		a.t.Fatal(err)
	}
	to := brokers.Topic{Lane: brokers.ToSource, Source: sourceID, Cluster: a.h.cluster, Key: r.ID}
	a.h.eventually("publish a report", func() error { return a.transport.Publish(a.t.Context(), to, e) })
}

func applied(generation int64) metav1.Condition {
	return condition(workv1.WorkApplied, api.ReasonWorkApplied, generation)
}

// eventOn fails the test if there will be no event on the work for this reason.
func (h *hub) eventOn(w *workv1.ManifestWork, reason string) {
	h.t.Helper()
	h.eventOnObject(string(w.UID), reason)
}

func (h *hub) eventOnObject(uid, reason string) {
	h.t.Helper()
	h.eventually("there is an event "+reason, func() error {
		var events corev1.EventList
		if err := h.List(h.t.Context(), &events, client.InNamespace(h.cluster)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if string(e.InvolvedObject.UID) == uid && e.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("%d events, none says it", len(events.Items))
	})
}

func gone() metav1.Condition { return condition(api.ConditionDeleted, api.ReasonDeleted, 0) }

func condition(typ, reason string, generation int64) metav1.Condition {
	return metav1.Condition{
		Type: typ, Status: metav1.ConditionTrue, Reason: reason, ObservedGeneration: generation,
		LastTransitionTime: metav1.NewTime(time.Unix(1700000000, 0).UTC()),
	}
}

// summary is the conditions of a work, by type and reason.
func summary(w *workv1.ManifestWork) string {
	var all []string
	for _, c := range w.Status.Conditions {
		all = append(all, c.Type+"="+string(c.Status)+" "+c.Reason)
	}
	return strings.Join(all, ", ")
}
