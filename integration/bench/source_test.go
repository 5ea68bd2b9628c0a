//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A source publishes works and listens to what becomes of them. It knows nothing
// beside Open Cluster Management's protocol, so that every agent is asked for the
// same.
type source struct {
	name, cluster, namespace string
	transport                brokers.Transport
	stop                     func()

	mu    sync.Mutex
	open  map[string]*workv1.ManifestWork // By ID, what is not answered yet.
	empty chan struct{}                   // Closed when all is.
}

func startSource(ctx context.Context, t *testing.T, broker, name, cluster, namespace string) *source {
	t.Helper()
	transport, err := drivers.All.Open(ctx, "mqtt://"+broker, brokers.Config{Role: brokers.RoleSource, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	s := &source{name: name, cluster: cluster, namespace: namespace, transport: transport, open: map[string]*workv1.ManifestWork{}}
	ctx, cancel := context.WithCancel(ctx)
	ready := make(chan struct{})
	once := sync.OnceFunc(func() { close(ready) })
	var listening sync.WaitGroup
	listening.Go(func() {
		err := transport.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToSource, Source: name, Cluster: brokers.Any}},
			Handle:  s.handle,
			Ready:   func(brokers.Session) { once() },
		})
		if err != nil {
			t.Errorf("subscribe: %v", err)
		}
	})
	s.stop = func() {
		cancel()
		listening.Wait()
		_ = transport.Close(context.Background()) // Nothing is left to be sent.
	}
	select {
	case <-ready:
	case <-ctx.Done():
		t.Fatal("the broker is not there")
	}
	return s
}

// handle takes down what an agent says.
func (s *source) handle(_ context.Context, d brokers.Delivery) {
	defer d.Done(nil)
	_, m, err := codec.Decode(d.Event)
	if err != nil {
		return
	}
	r, ok := m.(codec.Report)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.open[r.ID]
	if w == nil || !answers(r, w) {
		return
	}
	delete(s.open, r.ID)
	if len(s.open) == 0 {
		close(s.empty)
	}
}

// answers says whether the work is where it should be.
func answers(r codec.Report, w *workv1.ManifestWork) bool {
	if w.DeletionTimestamp != nil {
		gone, err := r.Deleted()
		return err == nil && gone
	}
	status, err := r.Status()
	if err != nil {
		return false
	}
	applied := meta.FindStatusCondition(status.Conditions, workv1.WorkApplied)
	return applied != nil && applied.Status == metav1.ConditionTrue && applied.ObservedGeneration == w.Generation
}

// works are n works of so many config maps each. Their names are those of no other
// run: on the one cluster that there is, a name belongs to the source that came
// first.
func (s *source) works(name string, n, objects int) []*workv1.ManifestWork {
	all := make([]*workv1.ManifestWork, n)
	for i := range all {
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%s-%d", s.cluster, name, i), Namespace: s.cluster}}
		w.Spec.Workload.Manifests = make([]workv1.Manifest, objects)
		all[i] = s.fill(w, 1)
	}
	return all
}

// fill gives a work its next generation.
func (s *source) fill(w *workv1.ManifestWork, generation int64) *workv1.ManifestWork {
	w = w.DeepCopy()
	w.Generation = generation
	for i := range w.Spec.Workload.Manifests {
		raw, err := json.Marshal(configMap(s.namespace, fmt.Sprintf("%s-%d", w.Name, i), fmt.Sprint(generation)))
		if err != nil {
			panic(err) // It is made of strings.
		}
		w.Spec.Workload.Manifests[i].RawExtension = runtime.RawExtension{Raw: raw}
	}
	return w
}

func (s *source) change(works []*workv1.ManifestWork) []*workv1.ManifestWork {
	out := make([]*workv1.ManifestWork, len(works))
	for i, w := range works {
		out[i] = s.fill(w, w.Generation+1)
	}
	return out
}

func (s *source) remove(works []*workv1.ManifestWork) []*workv1.ManifestWork {
	out := make([]*workv1.ManifestWork, len(works))
	for i, w := range works {
		out[i] = w.DeepCopy()
		out[i].DeletionTimestamp = &metav1.Time{Time: time.Now()}
	}
	return out
}

// publish sends the works to the agent.
func (s *source) publish(ctx context.Context, t *testing.T, works []*workv1.ManifestWork) {
	t.Helper()
	events := make([]event.Event, len(works))
	s.mu.Lock()
	s.empty = make(chan struct{})
	clear(s.open)
	for i, w := range works {
		b, err := codec.NewBundle(s.name, w)
		if err != nil {
			t.Fatal(err)
		}
		action := codec.Update
		switch {
		case b.Deleting():
			action = codec.Delete
		case w.Generation == 1:
			action = codec.Create
		}
		if events[i], err = b.Encode(action); err != nil {
			t.Fatal(err)
		}
		s.open[b.ID] = w
	}
	s.mu.Unlock()
	const atOnce = 16
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, e := range events {
		g.Go(func() error {
			to := brokers.Topic{Lane: brokers.ToCluster, Source: s.name, Cluster: s.cluster}
			return s.transport.Publish(ctx, to, e)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// greet sends a work until it is answered: what is sent before an agent listens
// for the first time is lost.
func (s *source) greet(ctx context.Context, t *testing.T) {
	t.Helper()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	s.publish(ctx, t, s.works("first", 1, 1))
	for {
		select {
		case <-s.empty:
			return
		case <-again.C:
			s.publish(ctx, t, s.works("first", 1, 1))
		case <-ctx.Done():
			t.Fatal("the agent does not answer")
		}
	}
}

// await returns when all works that were published last are answered.
func (s *source) await(ctx context.Context, t *testing.T, works []*workv1.ManifestWork) {
	t.Helper()
	s.mu.Lock()
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Fatalf("%d of %d works were not answered", len(s.open), len(works))
	}
}

func configMap(namespace, name, value string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": name, "namespace": namespace},
		"data":     map[string]any{"value": value},
	}
}
