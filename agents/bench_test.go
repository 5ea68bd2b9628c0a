package agents_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A cluster is an applier that imagines its cluster: what was applied is what
// the cluster has.
type cluster struct {
	mu       sync.Mutex
	applied  map[string]string // Payloads by source and ID.
	calls    map[string]int    // By operation.
	next     []error           // For the next calls.
	block    chan struct{}     // Apply waits for it, if set.
	blocked  chan struct{}     // Apply says that it waits.
	panicsOn string            // Payload that Apply panics on.
}

func newCluster() *cluster {
	return &cluster{applied: map[string]string{}, calls: map[string]int{}}
}

func key(b codec.Bundle) string { return b.Source + "/" + b.ID }

func (c *cluster) call(operation string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[operation]++
	if len(c.next) == 0 {
		return nil
	}
	err := c.next[0]
	c.next = c.next[1:]
	return err
}

func (c *cluster) Apply(ctx context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	err := c.call("apply")
	c.mu.Lock()
	block := c.block
	panics := c.panicsOn != "" && c.panicsOn == string(b.Payload)
	c.mu.Unlock()
	if panics {
		panic("applier met what it cannot stand")
	}
	if block != nil {
		c.blocked <- struct{}{}
		select {
		case <-block:
		case <-ctx.Done():
			return codec.Report{}, ctx.Err()
		}
	}
	if err != nil {
		return status(b, "Applied", metav1.ConditionFalse), err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied[key(b)] = string(b.Payload)
	return status(b, "Applied", metav1.ConditionTrue), nil
}

func (c *cluster) Observe(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	return status(b, "Applied", metav1.ConditionTrue), c.call("observe")
}

func (c *cluster) Delete(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	if err := c.call("delete"); err != nil {
		return status(b, api.ConditionDeleting, metav1.ConditionTrue), err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.applied, key(b))
	return status(b, api.ConditionDeleted, metav1.ConditionTrue), nil
}

func (c *cluster) has() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.applied)
}

func (c *cluster) count(operation string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[operation]
}

func status(b codec.Bundle, condition string, value metav1.ConditionStatus) codec.Report {
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: condition, Status: value, Reason: "Imagined", ObservedGeneration: b.Generation,
		LastTransitionTime: metav1.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}}})
	if err != nil {
		panic(err)
	}
	return r
}

// failing is a store whose next commits fail, or take long.
type failing struct {
	agents.Volatile
	mu     sync.Mutex
	next   []error
	refuse string        // The ID of a work that cannot be stored.
	takes  time.Duration // Of each commit, in bubble time.
}

func (f *failing) Commit(c agents.Changes) error {
	f.mu.Lock()
	takes := f.takes
	f.mu.Unlock()
	time.Sleep(takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.next) > 0 {
		err := f.next[0]
		f.next = f.next[1:]
		return err
	}
	for k := range c.Works {
		if f.refuse != "" && k.ID == f.refuse {
			return errors.New("key too large")
		}
	}
	return f.Volatile.Commit(c)
}

// slow has every commit take so long.
func (f *failing) slow(takes time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes = takes
}

// fail has the next commits fail, and none if n is 0.
func (f *failing) fail(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = nil
	for range n {
		f.next = append(f.next, errors.New("no space left on device"))
	}
}

// A bench is an agent on a bench: a broker, and the source's end of it.
type bench struct {
	t       *testing.T
	broker  *mem.Broker
	cluster *cluster
	applier agents.Applier // Default: cluster.
	will    *brokers.Will  // Of the agent.
	store   *failing
	source  brokers.Transport

	mu        sync.Mutex
	reports   []codec.Report
	questions []codec.SpecResync
	hubs      map[string]*hub         // Sources that know digests.
	packed    map[codec.Sequence]bool // Which reports came compressed.
	zstd      *codec.Compressor
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, broker: mem.NewBroker(mem.Options{}), cluster: newCluster(), store: &failing{}}
	b.source = b.listen("hub1")
	return b
}

// listen opens a source's transport, which notes what agents say.
func (b *bench) listen(source string) brokers.Transport {
	transport := b.broker.Open(brokers.Config{Role: brokers.RoleSource, Name: source})
	if b.zstd == nil {
		b.zstd, b.packed = codec.NewCompressor(), map[codec.Sequence]bool{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		err := transport.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToSource, Source: source, Cluster: brokers.Any}},
			Handle: brokers.Sync(func(_ context.Context, from brokers.Topic, e event.Event) error {
				m, packed, err := b.read(source, e)
				if m == nil && err == nil {
					return nil
				}
				if err != nil {
					b.t.Errorf("agent sent what cannot be decoded: %v", err)
					return err
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				switch m := m.(type) {
				case codec.Report:
					b.reports = append(b.reports, m)
					b.packed[m.Sequence] = packed
				case codec.SpecResync:
					b.questions = append(b.questions, m)
				}
				if h := b.hubs[source]; h != nil {
					h.hear(from, m)
				}
				return nil
			}),
		})
		if err != nil {
			b.t.Errorf("source's subscription: %v", err)
		}
	})
	b.t.Cleanup(func() {
		cancel()
		done.Wait()
		_ = transport.Close(context.Background())
	})
	return transport
}

// read reads what an agent says, unless its source is one of OCM's and cannot.
func (b *bench) read(source string, e event.Event) (m codec.Message, packed bool, err error) {
	b.mu.Lock()
	h := b.hubs[source]
	packed = codec.Compressed(e)
	blind := packed && h != nil && h.ocm
	b.mu.Unlock()
	if blind {
		return nil, true, nil
	}
	if packed {
		if e, err = b.zstd.Decompress(e); err != nil {
			return nil, true, err
		}
	}
	_, m, err = codec.Decode(e)
	return m, packed, err
}

// run starts an agent on the bench's store and cluster. The returned function
// stops it, as the end of the test does.
func (b *bench) run(o agents.Options) (*agents.Agent, func()) {
	b.t.Helper()
	if o.Sources == nil {
		o.Sources = []string{"hub1"}
	}
	transport := b.broker.Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1", Will: b.will})
	applier := b.applier
	if applier == nil {
		applier = b.cluster
	}
	a, err := agents.New("c1", b.store, applier, transport, o)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.Run(ctx); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		done.Wait()
		_ = transport.Close(context.Background())
	})
	b.t.Cleanup(stop)
	return a, stop
}

func (b *bench) encode(m codec.Message, action codec.Action) event.Event {
	b.t.Helper()
	e, err := m.Encode(action)
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func (b *bench) publish(m codec.Message, action codec.Action) {
	b.t.Helper()
	b.publishEvent(b.encode(m, action))
}

func (b *bench) publishEvent(e event.Event) {
	b.t.Helper()
	source := e.Get(event.Source)
	to := brokers.Topic{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1", Key: e.Get("resourceid")}
	transport := b.source
	if source != "hub1" && source != "liar" {
		to.Source = source
		transport = b.broker.Open(brokers.Config{Role: brokers.RoleSource, Name: source, ClientID: source + "-publisher"})
		b.t.Cleanup(func() { _ = transport.Close(context.Background()) })
		time.Sleep(time.Second) // Bubble time: it connects.
	}
	if err := transport.Publish(b.t.Context(), to, e); err != nil {
		b.t.Fatal(err)
	}
}

// settle lets everything happen that needs no more than the given time.
func (b *bench) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// last returns the newest report on a work.
func (b *bench) last(id string) codec.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	var newest codec.Report
	for _, r := range b.reports {
		if r.ID == id && r.Sequence > newest.Sequence {
			newest = r
		}
	}
	return newest
}

func (b *bench) sent() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.reports)
}

func work(source, id string, generation int64, content string) codec.Bundle {
	return codec.Bundle{
		ID: id, Source: source, Cluster: "c1", Generation: generation,
		Metadata: fmt.Appendf(nil, `{"name":%q,"namespace":"c1"}`, id),
		Payload:  fmt.Appendf(nil, `{"manifests":[{"content":%q}]}`, content),
	}
}

func gone(source, id string, generation int64) codec.Bundle {
	return codec.Bundle{
		ID: id, Source: source, Cluster: "c1", Generation: generation, DeletedAt: time.Now().UTC(),
		Metadata: fmt.Appendf(nil, `{"name":%q,"namespace":"c1"}`, id),
	}
}

func wantHas(t *testing.T, c *cluster, want map[string]string) {
	t.Helper()
	full := map[string]string{}
	for k, content := range want {
		full[k] = fmt.Sprintf(`{"manifests":[{"content":%q}]}`, content)
	}
	if diff := cmp.Diff(full, c.has()); diff != "" {
		t.Errorf("the cluster has (-want +got):\n%s", diff)
	}
}
