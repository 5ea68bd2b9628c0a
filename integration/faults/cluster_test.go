package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// taintLabel is on every object of the cases and says which cluster it is for.
const taintLabel = "faults.fleetcast.io/cluster"

// A cluster is where works go: an API server with an agent as a process, or an
// agent in this process whose cluster is imagined.
type cluster struct {
	name  string
	link  *link  // Between its agent and the broker.
	dir   string // Of its agent.
	dead  bool   // It has no agent, and nothing is expected of it.
	agent *process

	// Of a real one.
	server  *apitest.Server
	api     *link // Between its agent and its API server.
	client  kubernetes.Interface
	metrics string

	mu  sync.Mutex
	has map[string]int64 // Versions by name.
}

// there returns the version of a work on the cluster, 0 for none. It asks the
// API server where there is one.
func (c *cluster) there(ctx context.Context, name string) (int64, error) {
	if c.client == nil {
		return c.holds()[name], nil
	}
	m, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil || len(m.Items) == 0 {
		return 0, err
	}
	return strconv.ParseInt(m.Items[0].Data["version"], 10, 64)
}

// holds returns what is known to be on the cluster.
func (c *cluster) holds() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.has)
}

func (c *cluster) set(name string, version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version == 0 {
		delete(c.has, name)
		return
	}
	c.has[name] = version
}

// watch records what is on a real cluster until the test ends.
func (c *cluster) watch(t testing.TB, r *record) {
	t.Helper()
	factory := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = taintLabel
	}))
	informer := factory.Core().V1().ConfigMaps().Informer()
	see := func(object any) {
		if m, ok := object.(*corev1.ConfigMap); ok {
			version, _ := strconv.ParseInt(m.Data["version"], 10, 64)
			c.set(m.Name, version)
			r.applied(key{c.name, m.Name}, version, m.Labels[taintLabel])
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, now any) { see(now) },
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			if m, ok := object.(*corev1.ConfigMap); ok {
				version, _ := strconv.ParseInt(m.Data["version"], 10, 64)
				c.set(m.Name, 0)
				r.removed(key{c.name, m.Name}, version)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	factory.Start(stop)
	t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatalf("the objects of cluster %s cannot be watched", c.name)
	}
}

// An imagined agent is the real one with a cluster that is a map. It speaks
// over the real broker and keeps its state on disk.
type imaginedAgent struct {
	cluster *cluster
	record  *record
}

// startImagined runs the agent until the returned function is called.
func (w *world) startImagined(c *cluster) (stop func() error) {
	w.t.Helper()
	store, err := agents.OpenDisk(filepath.Join(c.dir, "data"), c.name)
	if err != nil {
		w.t.Fatal(err)
	}
	transport, err := drivers.All.Open(w.t.Context(), w.broker.url(c.link), brokers.Config{Role: brokers.RoleAgent, Name: c.name})
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := agents.New(c.name, store, &imaginedAgent{cluster: c, record: w.record}, transport, agents.Options{Sources: []string{w.hub.source}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		err := <-ended
		closing, done := context.WithTimeout(context.Background(), patience)
		defer done()
		_ = transport.Close(closing) // The broker may be away for good by now.
		if closed := store.Close(); err == nil {
			err = closed
		}
		return err
	})
}

// Apply implements agents.Applier.
func (a *imaginedAgent) Apply(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	work, err := b.Work()
	if err != nil {
		return codec.Report{}, err
	}
	for _, m := range work.Spec.Workload.Manifests {
		var object corev1.ConfigMap
		if err := json.Unmarshal(m.Raw, &object); err != nil {
			return codec.Report{}, err
		}
		version, err := strconv.ParseInt(object.Data["version"], 10, 64)
		if err != nil {
			return codec.Report{}, fmt.Errorf("version of %s: %w", object.Name, err)
		}
		a.cluster.set(object.Name, version)
		a.record.applied(key{a.cluster.name, object.Name}, version, object.Labels[taintLabel])
	}
	return imaginedReport(b, workv1.WorkApplied, workv1.WorkAvailable)
}

// Observe implements agents.Applier.
func (*imaginedAgent) Observe(_ context.Context, _ codec.Bundle, last codec.Report) (codec.Report, error) {
	return last, nil
}

// Delete implements agents.Applier.
func (a *imaginedAgent) Delete(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	work, err := b.Work()
	if err != nil {
		return codec.Report{}, err
	}
	if version := a.cluster.holds()[work.Name]; version != 0 {
		a.cluster.set(work.Name, 0)
		a.record.removed(key{a.cluster.name, work.Name}, version)
	}
	return imaginedReport(b, api.ConditionDeleted)
}

func imaginedReport(b codec.Bundle, conditions ...string) (codec.Report, error) {
	var status workv1.ManifestWorkStatus
	now := metav1.Now()
	for _, c := range conditions {
		status.Conditions = append(status.Conditions, metav1.Condition{
			Type: c, Status: metav1.ConditionTrue, ObservedGeneration: b.Generation, Reason: "Imagined", LastTransitionTime: now,
		})
	}
	return codec.NewReport(b, status)
}
