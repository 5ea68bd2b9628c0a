package sources_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// A cluster is an agent that does at once what bundles say, keeps it over lost
// sessions, and asks whenever a session is established.
type cluster struct {
	name      string
	transport brokers.Transport
	instance  digest.Key // Zero if it does not know digests.

	mu       sync.Mutex
	has      map[string]codec.Bundle
	newest   map[string]int64
	reports  map[string]codec.Report
	sequence codec.Sequence
	outbox   chan codec.Message
	matched  digest.Short // What the source agreed to last.
	term     int64
	epoch    string
}

func newCluster(b *mem.Broker, name string) *cluster {
	return &cluster{
		name:      name,
		transport: b.Open(brokers.Config{Role: brokers.RoleAgent, Name: name}),
		has:       map[string]codec.Bundle{},
		newest:    map[string]int64{},
		reports:   map[string]codec.Report{},
		outbox:    make(chan codec.Message, 10000),
	}
}

func (c *cluster) run(ctx context.Context) error {
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-c.outbox:
				c.send(ctx, m)
			}
		}
	}()
	if c.instance != (digest.Key{}) {
		go c.converse(ctx)
	}
	return c.transport.Subscribe(ctx, brokers.Subscription{
		Filters: []brokers.Filter{
			{Lane: brokers.ToCluster, Source: sourceID, Cluster: c.name},
			{Lane: brokers.ToAllClusters, Source: sourceID},
		},
		Ready: func(brokers.Session) { c.outbox <- c.question() },
		Handle: brokers.Sync(func(_ context.Context, _ brokers.Topic, e event.Event) error {
			_, m, err := codec.Decode(e)
			if err != nil {
				return fmt.Errorf("%w: %w", brokers.ErrReject, err)
			}
			switch m := m.(type) {
			case codec.Bundle:
				c.take(m)
			case codec.StatusResync:
				c.answer(m)
			default:
				c.reply(m)
			}
			return nil
		}),
	})
}

// send gives up when the broker is away, as agents of OCM do: the comparisons
// have to repair what is lost.
func (c *cluster) send(ctx context.Context, m codec.Message) {
	action, key := codec.Announce, fmt.Sprintf("%T", m)
	switch m := m.(type) {
	case codec.Report:
		action, key = codec.Update, m.ID
	case codec.SpecResync:
		action = codec.ResyncRequest
	case codec.Entries:
		key += fmt.Sprint(m.Buckets[0])
	}
	e, err := m.Encode(action)
	if err != nil {
		panic(err)
	}
	to := brokers.Topic{Lane: brokers.ToSource, Source: sourceID, Cluster: c.name, Key: key}
	_ = c.transport.Publish(ctx, to, e)
}

func (c *cluster) question() codec.SpecResync {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := codec.SpecResync{Agent: c.name, Source: sourceID, Cluster: c.name}
	if c.instance != (digest.Key{}) {
		q.Capabilities = []string{codec.CapDigest}
	}
	for id, b := range c.has {
		q.Versions = append(q.Versions, codec.Version{ID: id, Generation: b.Generation})
	}
	return q
}

func (c *cluster) take(b codec.Bundle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Also of what is deleted: an older event must not bring it back.
	if b.Generation < c.newest[b.ID] {
		return
	}
	c.newest[b.ID] = b.Generation
	typ := workv1.WorkApplied
	if b.Deleting() {
		typ = api.ConditionDeleted
		delete(c.has, b.ID)
	} else {
		c.has[b.ID] = b
	}
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: typ, Status: metav1.ConditionTrue, Reason: "Done", ObservedGeneration: b.Generation,
	}}})
	if err != nil {
		panic(err)
	}
	c.sequence = c.sequence.Next(time.Now())
	r.Agent, r.Sequence = c.name, c.sequence
	c.reports[b.ID] = r
	c.outbox <- r
}

func (c *cluster) answer(q codec.StatusResync) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range q.Hashes {
		if r, ok := c.reports[h.ID]; ok && r.Hash != h.Hash {
			c.sequence = c.sequence.Next(time.Now())
			r.Sequence = c.sequence
			c.reports[h.ID] = r
			c.outbox <- r
		}
	}
}

// TestConverges changes and deletes works over brokers that lose, repeat, delay
// and disconnect, and expects that clusters and source agree in the end.
func TestConverges(t *testing.T) {
	for name, o := range map[string]mem.Options{
		"kind":  {},
		"nasty": {Delay: 2 * time.Second, Duplicate: 0.3, Drop: 0.2, Cut: 0.02},
		"log":   {Log: true, Delay: 2 * time.Second, Duplicate: 0.3, Cut: 0.02},
	} {
		for seed := range uint64(3) {
			for _, digests := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d digests=%v", name, seed, digests), func(t *testing.T) {
					o.Seed = seed
					synctest.Test(t, func(t *testing.T) { converge(t, o, digests) })
				})
			}
		}
	}
}

func converge(t *testing.T, o mem.Options, digests bool) {
	b := mem.NewBroker(o)
	src := memory.New(sourceID)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	d := sources.NewDispatcher(sourceID, src, b.Open(brokers.Config{Role: brokers.RoleSource, Name: sourceID}), sources.Options{})
	src.Notify(d.Changed)
	start := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	start(d.Run)
	clusters := map[string]*cluster{}
	for i := range 5 {
		name := fmt.Sprint("c", i)
		clusters[name] = newCluster(b, name)
		if digests {
			clusters[name].instance = digest.Key{byte(i + 1)}
		}
		start(clusters[name].run)
	}

	put := func(cluster, name string) {
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
		w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{
			Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`),
		}}}
		if _, err := src.Put(w); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 5 {
		for name := range clusters {
			for i := range 10 {
				put(name, fmt.Sprint("w", i))
			}
			if err := src.Delete(name, fmt.Sprint("w", round)); err != nil {
				t.Fatal(err)
			}
		}
		b.Disconnect("c1-client")
		pass(time.Second)
		if round == 2 {
			b.Stop()
			pass(time.Minute)
			b.Start()
		}
	}
	for name := range clusters {
		put(name, "w0") // Again, after its deletion in the first round.
		if err := src.Delete(name, "w9"); err != nil {
			t.Fatal(err)
		}
	}

	deadline, stop := context.WithTimeout(ctx, 24*time.Hour)
	defer stop()
	if err := src.Await(deadline, func() bool { return settled(src, clusters) == "" }); err != nil {
		t.Fatalf("no agreement within a day: %s", settled(src, clusters))
	}
	if !digests {
		return
	}
	inSync := func() bool {
		for name := range clusters {
			if state, ok := src.Agent(name); !ok || !state.InSync || len(state.Unclaimed) > 0 {
				return false
			}
		}
		return true
	}
	if err := src.Await(deadline, inSync); err != nil {
		t.Fatal("both ends agree, and no digest says so within a day")
	}
}

// settled says what source and clusters do not agree on.
func settled(src *memory.Source, clusters map[string]*cluster) string {
	for name, c := range clusters {
		held, err := src.Held(context.Background(), name)
		if err != nil {
			return err.Error()
		}
		if differs := c.differs(held); differs != "" {
			return name + ": " + differs
		}
	}
	return ""
}

func (c *cluster) differs(held []sources.Held) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range held {
		if h.Deleting || h.Reported != h.Generation || c.has[h.ID].Generation != h.Generation {
			return fmt.Sprintf("%+v, it has generation %d", h, c.has[h.ID].Generation)
		}
	}
	if len(c.has) != len(held) {
		return fmt.Sprintf("it has %d works, the source %d", len(c.has), len(held))
	}
	return ""
}
