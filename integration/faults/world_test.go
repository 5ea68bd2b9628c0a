package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// patience is how long anything may take that is not measured. It is far above
// what it takes, so that a loaded machine does not fail a test.
const patience = 2 * time.Minute

// A world is one case's hub, broker and clusters, with a network between them.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	dir      string
	record   *record
	broker   *broker
	hub      *hub
	clusters map[string]*cluster
	base     map[string]usage // Of each program when all was well first.
	over     time.Time        // When the faults ended, if that was before the case's run did.
}

// settings are what a case wants of its world.
type settings struct {
	broker   brokerSettings
	clusters []string // With an API server and an agent as a process. Default: c1.
	imagined []string // With an agent in this process.
	dead     []string // Without an agent.
	hubFlags []string // More flags of the hub.
}

// newWorld starts everything and returns when the hub takes works.
func newWorld(t *testing.T, kind *brokerKind, s settings, seed uint64) *world {
	t.Helper()
	history, err := os.Create(filepath.Join(t.ArtifactDir(), "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = history.Close() })
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), record: newRecord(history),
		clusters: map[string]*cluster{}, base: map[string]usage{},
	}
	w.broker = newBroker(t, kind, w.dir, s.broker)
	w.broker.start()
	if s.clusters == nil {
		s.clusters = []string{"c1"}
	}
	for _, name := range slices.Concat(s.clusters, s.imagined, s.dead) {
		w.clusters[name] = &cluster{name: name, dir: filepath.Join(w.dir, "agents", name), has: map[string]int64{}, dead: slices.Contains(s.dead, name)}
	}
	w.hub = w.openHub("hub", s.hubFlags...)
	for _, name := range slices.Concat(s.clusters, s.imagined) {
		w.clusters[name].link = newLink(t, w.broker.servers()...)
	}
	for _, name := range s.clusters {
		w.startCluster(w.clusters[name])
	}
	for _, name := range s.imagined {
		stop := w.startImagined(w.clusters[name])
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Errorf("agent of imagined cluster %s: %v", name, err)
			}
		})
	}
	return w
}

// startCluster starts an API server and its agent.
func (w *world) startCluster(c *cluster) {
	w.t.Helper()
	c.server = apitest.Start(w.t, apitest.Full)
	c.api = newLink(w.t, apiAddress(w.t, c.server))
	client, err := kubernetes.NewForConfig(c.server.Config())
	if err != nil {
		w.t.Fatal(err)
	}
	c.client, c.metrics = client, freeAddress(w.t)
	c.watch(w.t, w.record)
	program, kubeconfig := binary(w.t, "fleetcast-agent", "../../cmd/agent"), behind(w.t, c.server, c.api)
	c.agent = &process{name: "agent-" + c.name, log: filepath.Join(w.t.ArtifactDir(), "agent-"+c.name+".log")}
	c.agent.command = func() *exec.Cmd {
		return exec.Command(program, "--cluster-name", c.name, "--kubeconfig", kubeconfig, "--broker", w.broker.url(c.link),
			"--data-dir", filepath.Join(c.dir, "data"), "--source-id", w.hub.source, "--log-level=debug", "--metrics-bind-address", c.metrics)
	}
	w.t.Cleanup(c.agent.kill)
	w.run(c.agent)
}

func (w *world) run(p *process) {
	w.t.Helper()
	if err := p.start(); err != nil {
		w.t.Fatal(err)
	}
}

// restart kills the program and starts it again.
func (w *world) restart(p *process) {
	w.t.Helper()
	p.kill()
	w.run(p)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// step says in the history what the case does now.
func (w *world) stepf(format string, args ...any) { w.record.step(fmt.Sprintf(format, args...)) }

// lasts is how long a fault lasts that ends by itself.
func (w *world) lasts(d time.Duration) {
	w.t.Helper()
	w.stepf("for %s", d)
	select {
	case <-time.After(d):
	case <-w.t.Context().Done():
	}
}

// put creates or updates a work until the hub has accepted it.
func (w *world) put(k key) { w.putSized(k, 100) }

// putSized puts a work whose object has about size bytes.
func (w *world) putSized(k key, size int) {
	w.t.Helper()
	w.must(w.write(k, size))
}

func (w *world) write(k key, size int) error {
	version := w.record.next(k)
	return attempt(func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		u, err := w.hub.write(ctx, k, version, size)
		if err == nil {
			w.record.accepted(k, version, u.GetGeneration())
		}
		return err
	})
}

// remove deletes a work on the hub.
func (w *world) remove(k key) {
	w.t.Helper()
	w.must(w.erase(k))
}

func (w *world) erase(k key) error {
	w.record.remove(k)
	return attempt(func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		return w.hub.remove(ctx, k)
	})
}

// works are the keys of so many works of a cluster.
func works(cluster string, n int) []key {
	all := make([]key, n)
	for i := range all {
		all[i] = key{cluster, fmt.Sprintf("w%04d", i)}
	}
	return all
}

// putAll puts the works, several at a time.
func (w *world) putAll(all []key) { w.each(all, func(k key) error { return w.write(k, 100) }) }

func (w *world) removeAll(all []key) { w.each(all, w.erase) }

func (w *world) each(all []key, do func(key) error) {
	w.t.Helper()
	var g errgroup.Group
	g.SetLimit(8)
	for _, k := range all {
		g.Go(func() error { return do(k) })
	}
	w.must(g.Wait())
}

// publishing updates the works over and over, as fast as the hub takes it, until
// the returned function is called.
func (w *world) publishing(all []key) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var g errgroup.Group
	const writers = 4
	for i := range writers {
		g.Go(func() error {
			// A key has one writer: its versions are accepted in their order.
			for n := i; ctx.Err() == nil && i < len(all); n += writers {
				if n >= len(all) {
					n = i
				}
				if err := w.write(all[n], 100); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return func() {
		w.t.Helper()
		cancel()
		w.must(g.Wait())
	}
}

// settled says what is not yet as it shall be.
func (w *world) settled() error {
	w.record.mu.Lock()
	want, kept := maps.Clone(w.record.want), maps.Clone(w.record.kept)
	w.record.mu.Unlock()
	for _, object := range w.hub.works.List() {
		u, ok := object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		k := key{u.GetNamespace(), u.GetName()}
		if c := w.clusters[k.cluster]; c == nil || c.dead {
			continue
		}
		wanted, ok := want[k]
		if !ok {
			return fmt.Errorf("the hub still has %s, which was deleted", k)
		}
		if err := reported(u, wanted); err != nil {
			return err
		}
		delete(want, k)
	}
	for k := range want {
		if c := w.clusters[k.cluster]; c != nil && !c.dead {
			return fmt.Errorf("the hub does not have %s", k)
		}
	}
	return w.applied(kept)
}

// applied says what clusters lack, or have and should not.
func (w *world) applied(kept map[key]int64) error {
	w.record.mu.Lock()
	want := maps.Clone(w.record.want)
	w.record.mu.Unlock()
	for name, c := range w.clusters {
		if c.dead {
			continue
		}
		has := c.holds()
		for k, wanted := range want {
			if k.cluster != name || wanted.refused {
				continue
			}
			if has[k.name] != wanted.version {
				return fmt.Errorf("%s is at version %d on its cluster, want %d", k, has[k.name], wanted.version)
			}
			delete(has, k.name)
		}
		for k, version := range kept {
			if k.cluster != name {
				continue
			}
			if has[k.name] != version {
				return fmt.Errorf("%s is at version %d on its cluster, which shall keep %d", k, has[k.name], version)
			}
			delete(has, k.name)
		}
		for work := range has {
			return fmt.Errorf("cluster %s still has %s", name, work)
		}
	}
	return nil
}

// reported says what the hub has not been told of a work.
func reported(u *unstructured.Unstructured, want wanted) error {
	k := key{u.GetNamespace(), u.GetName()}
	if got := versionOf(u); got != want.version {
		return fmt.Errorf("the hub has version %d of %s, want %d", got, k, want.version)
	}
	if want.refused {
		if _, status := condition(u, "Dispatched"); status != "False" {
			return fmt.Errorf("the hub does not say that it cannot send %s", k)
		}
		return nil
	}
	for _, c := range []string{"Applied", "Available"} {
		generation, status := condition(u, c)
		if status != "True" || generation != u.GetGeneration() {
			return fmt.Errorf("%s of %s is %q for generation %d, want True for %d", c, k, status, generation, u.GetGeneration())
		}
	}
	return nil
}

// condition returns what generation a work's condition is of, and its status.
func condition(u *unstructured.Unstructured, name string) (generation int64, status string) {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		if fields, ok := c.(map[string]any); ok && fields["type"] == name {
			generation, _, _ = unstructured.NestedInt64(fields, "observedGeneration")
			status, _, _ = unstructured.NestedString(fields, "status")
		}
	}
	return generation, status
}

// converge waits until everything is as it shall be, and notes what the
// programs use when that is so for the first time.
func (w *world) converge() {
	w.t.Helper()
	await(w.t, "everything is as the hub wants it", w.settled)
	w.stepf("converged")
	for _, p := range w.programs() {
		if _, ok := w.base[p.name]; !ok {
			// A program that is not ready has not started all that it needs.
			await(w.t, p.name+" is ready", p.ready)
			await(w.t, p.name+" tells what it uses", func() (err error) {
				w.base[p.name], err = usageOf(p.metrics)
				return err
			})
		}
	}
}

// await repeats try until it succeeds.
func await(t testing.TB, what string, try func() error) {
	t.Helper()
	if err := within(patience, try); err != nil {
		t.Fatalf("%s: not within %s: %v", what, patience, err)
	}
}

// attempt is await for what runs beside the test.
func attempt(try func() error) error { return within(patience, try) }

func within(d time.Duration, try func() error) error {
	deadline := time.Now().Add(d)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(err, errLate)
		}
		<-tick.C
	}
}

// errLate is beside the last error of what was waited for.
var errLate = errors.New("it was waited for long enough")

// parallel runs the functions side by side.
func parallel(all ...func()) {
	var g sync.WaitGroup
	for _, f := range all {
		g.Go(f)
	}
	g.Wait()
}
