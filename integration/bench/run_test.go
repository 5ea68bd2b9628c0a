//go:build bench

package bench

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
)

// The phases of a run.
const (
	created   = "new"
	unchanged = "sent again, unchanged"
	atRest    = "at rest"
	changed   = "changed"
	deleted   = "deleted"
)

var phases = []string{created, unchanged, atRest, changed, deleted}

// patience is for a machine with other things to do.
const patience = 5 * time.Minute

// calm is how long an agent has to give back memory that it does not need.
const calm = 15 * time.Second

// A bench is a broker and an API server for all runs.
type bench struct {
	broker  string // Host and port.
	server  *apitest.Server
	objects dynamic.Interface
	count   counter
	runs    int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	server := apitest.Shared(t)
	objects, err := dynamic.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{broker: startMosquitto(t), server: server, objects: objects, count: newCounter(t, server.Config())}
	// An agent of Open Cluster Management expects it to be there.
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	for _, crd := range crds.Agent() {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
		if err != nil {
			t.Fatal(err)
		}
		delete(content, "status")
		u := &unstructured.Unstructured{Object: content}
		u.SetAPIVersion("apiextensions.k8s.io/v1")
		u.SetKind("CustomResourceDefinition")
		if _, err := objects.Resource(definitions).Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// run starts an agent, gives it works, changes and deletes them, and ends it.
func (b *bench) run(t *testing.T, c contender) result {
	t.Helper()
	b.runs++
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	namespace := b.server.Namespace(t)
	s := startSource(ctx, t, b.broker, fmt.Sprintf("source-%d", b.runs), fmt.Sprintf("cluster-%d", b.runs), namespace)
	defer s.stop()
	agent := start(t, c, place{
		broker: b.broker, source: s.name, cluster: s.cluster,
		kubeconfig: b.server.Kubeconfig(), dir: t.TempDir(),
	})
	defer agent.kill()
	go func() {
		<-agent.done // Nobody answers any more.
		cancel()
	}()

	r := result{name: c.name, phases: map[string]measure{}}
	phase := func(name string, do func()) {
		before := b.look(t, agent)
		began := time.Now()
		do()
		took := time.Since(began)
		b.settle(t)
		r.phases[name] = b.look(t, agent).since(before, took)
	}
	// The first work is for what is done once: kinds are looked up, watches begin.
	s.greet(ctx, t)
	b.settle(t)

	all := s.works("work", *works, *objects)
	phase(created, func() { s.publish(ctx, t, all); s.await(ctx, t, all) })
	phase(unchanged, func() {
		s.publish(ctx, t, all)
		// It is through with them once it answers to what came after them.
		last := s.works("last", 1, 1)
		s.publish(ctx, t, last)
		s.await(ctx, t, last)
	})
	wait(t, calm)
	r.rss = agent.memory(t, "VmRSS")
	if *idle > 0 {
		phase(atRest, func() { wait(t, *idle) })
	}
	phase(changed, func() { all = s.change(all); s.publish(ctx, t, all); s.await(ctx, t, all) })
	phase(deleted, func() { all = s.remove(all); s.publish(ctx, t, all); s.await(ctx, t, all) })
	r.maxRSS = agent.memory(t, "VmHWM")
	agent.stop(t)
	return r
}

// A state is what was spent until a moment.
type state struct {
	agent, server float64
	requests      map[string]int
}

func (b *bench) look(t *testing.T, agent *process) state {
	t.Helper()
	requests, cpu := b.count.read(t)
	return state{agent: agent.cpu(t), server: cpu, requests: requests}
}

func (s state) since(before state, took time.Duration) measure {
	m := measure{took: took, agent: s.agent - before.agent, server: s.server - before.server, requests: map[string]int{}}
	for kind, n := range s.requests {
		if n -= before.requests[kind]; n > 0 {
			m.requests[kind] = n
		}
	}
	return m
}

// settle waits until nothing has written to the API server for a while, so that
// what an agent puts off counts where it belongs.
func (b *bench) settle(t *testing.T) {
	t.Helper()
	const pause = 7 * time.Second // Lists of new works are completed after five.
	was, _ := b.count.read(t)
	for {
		wait(t, pause)
		now, _ := b.count.read(t)
		if maps.Equal(writes(was), writes(now)) {
			return
		}
		was = now
	}
}

// wait lets time pass in which nothing is to happen.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// floor is how many config maps per second a client creates that does nothing
// else.
func (b *bench) floor(t *testing.T, n, workers int) float64 {
	t.Helper()
	namespace := b.server.Namespace(t)
	configMaps := b.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace)
	began := time.Now()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(workers)
	for i := range n {
		g.Go(func() error {
			_, err := configMaps.Create(ctx, &unstructured.Unstructured{Object: configMap(namespace, fmt.Sprint("floor-", i), "1")}, metav1.CreateOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return float64(n) / time.Since(began).Seconds()
}
