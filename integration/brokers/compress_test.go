//go:build integration

package brokers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// An imagined cluster has what was applied, and reports on each manifest at
// length.
type imagined struct {
	mu      sync.Mutex
	applied map[string]string
}

func (c *imagined) Apply(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied[b.ID] = string(b.Payload)
	return c.Observe(context.Background(), b, codec.Report{})
}

func (*imagined) Observe(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	s := workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{Type: workv1.WorkApplied, Status: metav1.ConditionTrue, Reason: "Imagined"}}}
	for i := range 6000 {
		s.ResourceStatus.Manifests = append(s.ResourceStatus.Manifests, workv1.ManifestCondition{
			ResourceMeta: workv1.ManifestResourceMeta{Ordinal: int32(i), Kind: "ConfigMap", Name: fmt.Sprint("settings-", i)},
		})
	}
	return codec.NewReport(b, s)
}

func (c *imagined) Delete(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	return codec.NewReport(b, workv1.ManifestWorkStatus{})
}

func (c *imagined) has(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applied[id]
}

// refusals is a source that keeps why works could not be sent.
type refusals struct {
	*memory.Source
	mu  sync.Mutex
	why map[sources.Key]error
}

// Refused implements sources.Refuser.
func (r *refusals) Refused(_ context.Context, k sources.Key, _ int64, reason error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why[k] = reason
	return nil
}

func (r *refusals) of(cluster, name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.why[r.Key(cluster, name)]; err != nil {
		return err.Error()
	}
	return ""
}

// deaf is an agent's transport that keeps from sources that the agent reads
// compressed works, as an older version does.
type deaf struct{ brokers.Transport }

func (d deaf) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	if _, m, err := codec.Decode(e); err == nil {
		switch m := m.(type) {
		case codec.SpecResync:
			m.Capabilities = []string{codec.CapDigest}
			return d.say(ctx, to, m, codec.ResyncRequest)
		case codec.Digest:
			m.Capabilities = []string{codec.CapDigest}
			return d.say(ctx, to, m, codec.Announce)
		}
	}
	return d.Transport.Publish(ctx, to, e)
}

func (d deaf) say(ctx context.Context, to brokers.Topic, m codec.Message, a codec.Action) error {
	e, err := m.Encode(a)
	if err != nil {
		return err
	}
	return d.Transport.Publish(ctx, to, e)
}

// threeMegabytes are manifests that compress to a tenth or so, each with a key of
// its own.
func threeMegabytes() []workv1.Manifest {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []workv1.Manifest
	for i := range 480 {
		raw := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings-%d","namespace":"web"},"data":{"key":"%016x%016x%016x","text":%q}}`,
			i, rng.Uint64(), rng.Uint64(), rng.Uint64(), strings.Repeat(fmt.Sprintf("%08x all work and no play makes Jack a dull boy. ", rng.Uint32()), 115))
		all = append(all, workv1.Manifest{RawExtension: runtime.RawExtension{Raw: raw}})
	}
	return all
}

// TestMosquittoCompressed: a work of 3 MB goes through a broker whose packets have
// 512 KiB to the cluster whose agent reads compressed works, and its report of
// half a megabyte comes back whole. The cluster with an agent that does not is
// told of as one whose work is too large; what fits goes to both.
func TestMosquittoCompressed(t *testing.T) {
	m := startMosquitto(t, false, "max_packet_size 524288\n")
	open := func(role brokers.Role, name string) brokers.Transport {
		// Before 2.1, mosquitto does not say what it takes, so the URL does.
		u := &url.URL{Scheme: "mqtt", Host: m.address, RawQuery: "max-packet=524288"}
		tr, err := mqtt.Open(context.Background(), u, brokers.Config{Role: role, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeTransport(t, tr) })
		return tr
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()

	src := &refusals{Source: memory.New("hub1"), why: map[sources.Key]error{}}
	d := sources.NewDispatcher("hub1", src, open(brokers.RoleSource, "hub1"), sources.Options{})
	src.Notify(d.Changed)
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("dispatcher: %v", err)
		}
	})
	clusters := map[string]*imagined{"new": {applied: map[string]string{}}, "old": {applied: map[string]string{}}}
	for name, cluster := range clusters {
		tr := open(brokers.RoleAgent, name)
		if name == "old" {
			tr = deaf{tr}
		}
		a, err := agents.New(name, &agents.Volatile{}, cluster, tr, agents.Options{Sources: []string{"hub1"}})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Errorf("agent of %s: %v", name, err)
			}
		})
	}
	put := func(cluster, name string, manifests []workv1.Manifest) {
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
		w.Spec.Workload.Manifests = manifests
		if _, err := src.Put(w); err != nil {
			t.Fatal(err)
		}
	}
	large := threeMegabytes()
	for cluster := range clusters {
		put(cluster, "large", large)
		put(cluster, "small", large[:2])
	}
	for name, cluster := range clusters {
		m.until("cluster "+name+" has the small work", func() bool { return cluster.has(src.Key(name, "small").ID) != "" })
	}
	key := src.Key("new", "large")
	m.until("the cluster that reads compressed works has the large one", func() bool { return clusters["new"].has(key.ID) != "" })
	b, _, err := src.Bundle(ctx, key)
	if err != nil || clusters["new"].has(key.ID) != string(b.Payload) || len(b.Payload) < 2<<20 {
		t.Errorf("the work of %d bytes is not what arrived: %v", len(b.Payload), err)
	}
	m.until("its report is there", func() bool {
		w, _ := src.Work("new", "large")
		s, err := w.Report.Status()
		return err == nil && len(s.ResourceStatus.Manifests) == 6000
	})
	m.until("the other cluster's work is told of", func() bool {
		why := src.of("old", "large")
		return strings.Contains(why, "the limit is 524288") && strings.Contains(why, fmt.Sprint(len(b.Payload)))
	})
	if why := src.of("new", "large"); why != "" {
		t.Errorf("a work that arrived is told of: %s", why)
	}
	if clusters["old"].has(src.Key("old", "large").ID) != "" {
		t.Error("a work of 3 MB fits a packet of 512 KiB")
	}
	if !json.Valid(b.Payload) {
		t.Error("the work is no JSON")
	}
}
