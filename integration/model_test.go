package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// TestModelConverges runs the real dispatcher and the real agents over a broker
// that duplicates, delays, reorders and loses, while programs crash and the
// broker is cut off, stopped and wiped. When that ends, every cluster has what
// the source wants and the source knows it. Nothing that the source did not
// delete may ever be deleted, and nothing that it deleted comes back.
//
// FLEETCAST_SEED repeats one run, FLEETCAST_RUNS sets how many there are.
func TestModelConverges(t *testing.T) {
	first, runs := uint64(1), 60
	if s := os.Getenv("FLEETCAST_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, runs = seed, 1
	} else if s := os.Getenv("FLEETCAST_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	for seed := first; seed < first+uint64(runs); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runModel(t, seed) })
		})
	}
}

var modelClusters = []string{"c1", "c2"}

// A model is a source, a broker and clusters, and what the source wants.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	broker *mem.Broker
	source *memory.Source
	hub    func() // Stops it; nil if it does not run.
	stores map[string]*agents.Volatile
	agents map[string]func()
	worlds map[string]*imagined
	want   map[string]string // Contents by cluster and name.
	log    *slog.Logger      // Says what happens when one run is repeated.
}

func runModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := &model{
		t: t, rng: rng,
		broker: mem.NewBroker(mem.Options{
			Seed: seed, Delay: upTo(rng, []time.Duration{time.Second, 30 * time.Second}[rng.IntN(2)]), Reconnect: upTo(rng, 5*time.Second) + 1,
			Duplicate: rng.Float64() * 0.3, Drop: float64(rng.IntN(2)) * rng.Float64() * 0.3, Cut: rng.Float64() * 0.05,
			Log: rng.IntN(2) == 0, Queue: []int{3, 10000}[rng.IntN(2)],
		}),
		source: memory.New("hub1"),
		stores: map[string]*agents.Volatile{}, agents: map[string]func(){}, worlds: map[string]*imagined{}, want: map[string]string{},
	}
	m.log = slog.New(slog.DiscardHandler)
	if os.Getenv("FLEETCAST_SEED") != "" {
		m.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, c := range modelClusters {
		m.stores[c], m.worlds[c] = &agents.Volatile{}, &imagined{m: m, name: c, objects: map[string]string{}, rng: rand.New(rand.NewPCG(seed, 1))}
		m.startAgent(c)
	}
	m.startHub()
	for range 20 + rng.IntN(60) {
		m.step()
	}
	m.heal()
	m.check()
	m.stopHub()
	for c := range m.agents {
		m.stopAgent(c)
	}
}

// step does one thing that may happen.
func (m *model) step() {
	cluster := modelClusters[m.rng.IntN(len(modelClusters))]
	name := fmt.Sprint("w", m.rng.IntN(4))
	what := m.rng.IntN(12)
	m.log.Info("step", "what", what, "cluster", cluster, "name", name)
	switch what {
	case 0, 1, 2, 3:
		m.put(cluster, name, fmt.Sprint(m.rng.IntN(1000)))
	case 4, 5:
		if err := m.source.Delete(cluster, name); err != nil {
			m.t.Fatal(err)
		}
		delete(m.want, cluster+"/"+name)
	case 6:
		m.stopAgent(cluster)
		m.startAgent(cluster)
	case 7:
		m.stopHub()
		m.startHub()
	case 8:
		m.broker.Disconnect([]string{"hub1", "c1-client", "c2-client"}[m.rng.IntN(3)])
	case 9:
		m.broker.Stop()
		m.pass(upTo(m.rng, time.Minute))
		m.broker.Start()
	case 10:
		m.broker.Wipe()
	case 11:
		m.worlds[cluster].fail(m.rng.IntN(4))
	}
	if m.rng.IntN(3) == 0 {
		m.pass(upTo(m.rng, 20*time.Second))
	}
}

func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

func (m *model) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (m *model) put(cluster, name, content string) {
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	raw := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"default"},"data":{"content":%q}}`, name, content)
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: raw}}}
	if _, err := m.source.Put(w); err != nil {
		m.t.Fatal(err)
	}
	m.want[cluster+"/"+name] = content
}

func (m *model) startHub() {
	transport := m.broker.Open(brokers.Config{Role: brokers.RoleSource, Name: "hub1"})
	d := sources.NewDispatcher("hub1", m.source, transport, sources.Options{Log: m.log})
	m.source.Notify(d.Changed)
	m.hub = m.start("hub", d.Run, transport)
}

func (m *model) stopHub() { m.hub() }

func (m *model) startAgent(cluster string) {
	transport := m.broker.Open(brokers.Config{Role: brokers.RoleAgent, Name: cluster})
	a, err := agents.New(cluster, m.stores[cluster], m.worlds[cluster], transport, agents.Options{Sources: []string{"hub1"}, Workers: 2, Log: m.log})
	if err != nil {
		m.t.Fatal(err)
	}
	m.agents[cluster] = m.start("agent of "+cluster, a.Run, transport)
}

func (m *model) stopAgent(cluster string) { m.agents[cluster]() }

// start runs a program until the returned function is called.
func (m *model) start(what string, run func(context.Context) error, transport brokers.Transport) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := run(ctx); err != nil {
			m.t.Errorf("%s: %v", what, err)
		}
	})
	return func() {
		cancel()
		done.Wait()
		_ = transport.Close(context.Background())
	}
}

// heal ends the faults and gives the system the time it may take: a few passes
// of what compares both ends, since the broker still loses events.
func (m *model) heal() {
	m.broker.Start()
	m.pass(3 * time.Hour)
}

func (m *model) check() {
	m.t.Helper()
	has, reported := map[string]string{}, map[string]string{}
	for cluster, w := range m.worlds {
		for name, content := range w.has() {
			has[cluster+"/"+name] = content
		}
		for name := range m.names() {
			if work, ok := m.source.Work(cluster, name); ok {
				if work.Bundle.Deleting() {
					m.t.Errorf("deletion of %s/%s was not confirmed", cluster, name)
				}
				if work.Report.Generation != work.Bundle.Generation {
					m.t.Errorf("report on %s/%s is of generation %d, want %d", cluster, name, work.Report.Generation, work.Bundle.Generation)
				}
				s, err := work.Report.Status()
				if err == nil && len(s.Conditions) == 1 {
					reported[cluster+"/"+name] = s.Conditions[0].Message
				}
			}
		}
	}
	if diff := cmp.Diff(m.want, has); diff != "" {
		m.t.Errorf("what the clusters have (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(m.want, reported); diff != "" {
		m.t.Errorf("what the source was told (-want +got):\n%s", diff)
	}
}

func (m *model) names() map[string]bool {
	return map[string]bool{"w0": true, "w1": true, "w2": true, "w3": true}
}

// imagined is a cluster that fails now and then.
type imagined struct {
	m    *model
	name string

	mu      sync.Mutex
	rng     *rand.Rand
	objects map[string]string
	failing int
}

func (i *imagined) fail(times int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failing = times
}

func (i *imagined) has() map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.objects)
}

// work takes a while, during which anything may happen, and may fail.
func (i *imagined) work(ctx context.Context) error {
	i.mu.Lock()
	d := upTo(i.rng, 2*time.Second)
	fails := i.failing > 0
	if fails {
		i.failing--
	}
	i.mu.Unlock()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fails {
		return errors.New("imagined failure")
	}
	return nil
}

func (i *imagined) Apply(ctx context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	if err := i.work(ctx); err != nil {
		return codec.Report{}, err
	}
	work, err := b.Work()
	if err != nil {
		return codec.Report{}, err
	}
	var object struct {
		Data struct {
			Content string `json:"content"`
		} `json:"data"`
	}
	if err := json.Unmarshal(work.Spec.Workload.Manifests[0].Raw, &object); err != nil {
		return codec.Report{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.objects[work.Name] = object.Data.Content
	return imaginedReport(b, workv1.WorkApplied, object.Data.Content)
}

func (i *imagined) Observe(ctx context.Context, _ codec.Bundle, last codec.Report) (codec.Report, error) {
	return last, i.work(ctx)
}

func (i *imagined) Delete(ctx context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	if err := i.work(ctx); err != nil {
		return codec.Report{}, err
	}
	work, err := b.Work()
	if err != nil {
		return codec.Report{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.objects, work.Name)
	return imaginedReport(b, api.ConditionDeleted, "")
}

func imaginedReport(b codec.Bundle, condition, message string) (codec.Report, error) {
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: condition, Status: metav1.ConditionTrue, ObservedGeneration: b.Generation, Reason: "Imagined", Message: message,
	}}})
}
