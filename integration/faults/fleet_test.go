package faults

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// A fleet is many clusters with their real agents, and their hub's real
// dispatcher, all in this process, over one broker that is a process of its
// own. The clusters are imagined: they are at once as they shall be.
type fleet struct {
	t        testing.TB
	broker   *broker
	meter    *meter
	source   *memory.Source
	hub      *sources.Dispatcher
	clusters []string
	works    []string
	said     *tally
	pause    time.Duration
}

const fleetSource = "hub1"

// TestFleet puts a small fleet through what the matrix puts a large one
// through, on the brokers that fleetcast-standalone brings along.
func TestFleet(t *testing.T) {
	for _, kind := range []*brokerKind{embeddedNATS, embeddedMQTT} {
		t.Run(kind.name, func(t *testing.T) { provesFleet(t, kind, 50, 20, time.Second) })
	}
}

// provesFleet counts what a fleet says when its broker restarts, when a
// hundredth of the works changes meanwhile, and when the broker loses all of
// its data under load. Agents wait for pause after a change until they compare.
func provesFleet(t *testing.T, kind *brokerKind, clusters, works int, pause time.Duration) {
	t.Helper()
	f := newFleet(t, kind, clusters, works, pause)
	f.settle("everything is on its cluster for the first time")

	// An unchanged fleet convinces itself of that with two events per cluster.
	before := f.said.snapshot()
	f.broker.stop()
	f.broker.start()
	f.awaitMatches(before)
	spent := f.said.since(before)
	f.settle("the broker is back")
	quiet := f.said.since(before)
	t.Logf("%s, %d clusters with %d works each, broker restarted: %s; until it was quiet: %s; on the wire %s",
		kind.name, clusters, works, spent, quiet, f.meter.since(before))
	if limit := 1000 * clusters; spent.bytes() > limit {
		t.Errorf("a restart of the broker moved %d bytes of events, want at most %d", spent.bytes(), limit)
	}
	if n := len(quiet.works["Bundle"]) + len(quiet.works["Report"]); n > 0 {
		t.Errorf("a restart of the broker moved %d works that did not change", n)
	}

	// Of a fleet of which a hundredth changed, exactly that moves.
	before = f.said.snapshot()
	f.broker.stop()
	changed := f.change(max(1, clusters*works/100))
	f.broker.start()
	f.settle("what changed is on its cluster")
	moved := f.said.since(before)
	t.Logf("%s, %d of %d works changed while the broker was away: %s; on the wire %s",
		kind.name, len(changed), clusters*works, moved, f.meter.since(before))
	moved.movedExactly(t, changed)

	// What a broker lost is made up for without sending everything again.
	before = f.said.snapshot()
	touched := f.underLoad(func() {
		f.broker.kill()
		f.broker.wipe()
		f.broker.start()
	})
	start := time.Now()
	f.settle("everything is equal again")
	moved = f.said.since(before)
	t.Logf("%s, broker wiped under load: equal and quiet after %s, %d works changed meanwhile: %s; on the wire %s",
		kind.name, time.Since(start).Round(time.Second), len(touched), moved, f.meter.since(before))
	moved.movedExactly(t, touched)
}

func newFleet(t *testing.T, kind *brokerKind, clusters, works int, pause time.Duration) *fleet {
	t.Helper()
	f := &fleet{
		t: t, pause: pause, broker: newBroker(t, kind, t.TempDir(), brokerSettings{}),
		source: memory.New(fleetSource), said: newTally(),
	}
	f.broker.start()
	f.meter = newMeter(t, f.broker.nodes[0].address)
	f.said.meter = f.meter
	for i := range clusters {
		f.clusters = append(f.clusters, fmt.Sprintf("cluster-%04d", i))
	}
	for i := range works {
		f.works = append(f.works, fmt.Sprintf("work-%03d", i))
	}
	for _, cluster := range f.clusters {
		for _, work := range f.works {
			f.put(cluster, work, "0")
		}
	}
	// The hub's context ends last, so that agents say goodbye to somebody.
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	transport := f.open(brokers.RoleSource, fleetSource)
	f.hub = sources.NewDispatcher(fleetSource, f.source, transport, sources.Options{})
	f.source.Notify(f.hub.Changed)
	run := func(what string, run func(context.Context) error, transport brokers.Transport) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			closing, done := context.WithTimeout(context.Background(), patience)
			defer done()
			_ = transport.Close(closing)
		})
	}
	run("hub", f.hub.Run, transport)
	for _, cluster := range f.clusters {
		transport := f.open(brokers.RoleAgent, cluster)
		a, err := agents.New(cluster, &agents.Volatile{}, obedient{}, transport, agents.Options{
			Sources: []string{fleetSource}, Workers: 1, Quiet: pause,
		})
		if err != nil {
			t.Fatal(err)
		}
		run("agent of "+cluster, a.Run, transport)
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return f
}

// open connects somebody through the meter.
func (f *fleet) open(role brokers.Role, name string) brokers.Transport {
	f.t.Helper()
	scheme := "nats"
	if f.broker.kind.mqtt {
		scheme = "mqtt"
	}
	u, err := url.Parse(scheme + "://" + f.meter.address + f.broker.kind.query)
	if err != nil {
		f.t.Fatal(err)
	}
	tr, err := drivers.All.Open(context.Background(), u.String(), brokers.Config{Role: role, Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return talker{tr, f.said}
}

// put creates or changes a work of about one kilobyte.
func (f *fleet) put(cluster, name, content string) {
	raw := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"default"},"data":{"content":%q,"more":%q}}`,
		name, content, strings.Repeat("x", 800))
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: raw}}}
	if _, err := f.source.Put(w); err != nil {
		f.t.Fatal(err)
	}
}

// change changes so many works, spread over all clusters, and returns their IDs.
func (f *fleet) change(n int) map[string]bool {
	ids := map[string]bool{}
	total := len(f.clusters) * len(f.works)
	for i := range n {
		at := i * (total / n)
		cluster, work := f.clusters[at/len(f.works)], f.works[at%len(f.works)]
		f.put(cluster, work, strconv.Itoa(int(time.Now().UnixNano())))
		ids[f.source.Key(cluster, work).ID] = true
	}
	return ids
}

// underLoad goes on changing works until what happens meanwhile is over, and
// some more of them; it returns the IDs of those that it changed.
func (f *fleet) underLoad(what func()) map[string]bool {
	over := make(chan struct{})
	go func() {
		defer close(over)
		what()
	}()
	touched := map[string]bool{}
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for i, more := 0, 50; more > 0; i++ {
		<-pace.C
		cluster, work := f.clusters[i%len(f.clusters)], f.works[i%2]
		f.put(cluster, work, strconv.Itoa(i))
		touched[f.source.Key(cluster, work).ID] = true
		select {
		case <-over:
			more--
		default:
		}
	}
	return touched
}

// settle waits until every cluster is known to have what it shall, and nobody
// has anything to say any more but that he is there.
func (f *fleet) settle(what string) {
	f.t.Helper()
	quiet := f.pause + 5*time.Second
	deadline := time.Now().Add(15 * time.Minute)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		problem := f.problem(quiet)
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: %s; so far %s", what, problem, f.said.snapshot())
		}
		<-tick.C
	}
}

// problem says why the fleet is not settled; "" if it is.
func (f *fleet) problem(quiet time.Duration) string {
	if idle := f.said.idle(); idle < quiet {
		return fmt.Sprintf("somebody spoke %s ago", idle)
	}
	if err := f.hub.Ready(); err != nil {
		return err.Error()
	}
	states, err := f.source.Agents(context.Background())
	if err != nil {
		return err.Error()
	}
	there := 0
	for _, s := range states {
		if s.Online && s.InSync {
			there++
		}
	}
	if there < len(f.clusters) {
		return fmt.Sprintf("%d of %d clusters are in sync", there, len(f.clusters))
	}
	for _, cluster := range f.clusters {
		for _, name := range f.works {
			w, ok := f.source.Work(cluster, name)
			if !ok || w.Report.Generation != w.Bundle.Generation {
				return fmt.Sprintf("cluster %s has not reported on generation %d of %s", cluster, w.Bundle.Generation, name)
			}
		}
	}
	return ""
}

// awaitMatches waits until every cluster has been told that it is in sync.
func (f *fleet) awaitMatches(before counts) {
	f.t.Helper()
	await(f.t, "every cluster is told that it has what it shall", func() error {
		if n := len(f.said.since(before).matched); n < len(f.clusters) {
			return fmt.Errorf("%d of %d are", n, len(f.clusters))
		}
		return nil
	})
}

// obedient is a cluster that is at once as it shall be.
type obedient struct{}

func (obedient) Apply(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	return reportOf(b, workv1.WorkApplied)
}

func (obedient) Observe(_ context.Context, _ codec.Bundle, last codec.Report) (codec.Report, error) {
	return last, nil
}

func (obedient) Delete(_ context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	return reportOf(b, api.ConditionDeleted)
}

func reportOf(b codec.Bundle, condition string) (codec.Report, error) {
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: condition, Status: metav1.ConditionTrue, ObservedGeneration: b.Generation, Reason: "Imagined",
	}}})
}

// A talker is a transport whose events are counted once the broker has them.
type talker struct {
	brokers.Transport
	said *tally
}

// Publish implements brokers.Transport.
func (t talker) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	err := t.Transport.Publish(ctx, to, e)
	if err == nil {
		t.said.note(to, e)
	}
	return err
}

// A tally counts what both ends of a fleet say.
type tally struct {
	meter *meter
	zstd  *codec.Compressor

	mu    sync.Mutex
	now   counts
	spoke time.Time // When somebody last said more than that he is there.
}

// counts are the events of a fleet, by kind.
type counts struct {
	events  map[string]int
	size    map[string]int
	works   map[string]map[string]int // Events by kind and ID of the work.
	matched map[string]int            // Matches by cluster.
	in, out int64                     // Bytes on the wire, as the clients see it.
}

func newTally() *tally {
	return &tally{now: counts{}.clone(), zstd: codec.NewCompressor()}
}

func (c counts) clone() counts {
	out := counts{map[string]int{}, map[string]int{}, map[string]map[string]int{}, map[string]int{}, c.in, c.out}
	maps.Copy(out.events, c.events)
	maps.Copy(out.size, c.size)
	maps.Copy(out.matched, c.matched)
	for kind, works := range c.works {
		out.works[kind] = maps.Clone(works)
	}
	return out
}

func (t *tally) note(to brokers.Topic, e event.Event) {
	kind, id, size := "other", "", e.Size()
	if plain, err := t.zstd.Decompress(e); codec.Compressed(e) && err == nil {
		e = plain
	}
	switch _, m, err := codec.Decode(e); m := m.(type) {
	case codec.Bundle:
		kind, id = "Bundle", m.ID
	case codec.Report:
		kind, id = "Report", m.ID
	default:
		if err == nil {
			kind = strings.TrimPrefix(fmt.Sprintf("%T", m), "codec.")
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.events[kind]++
	t.now.size[kind] += size
	if id != "" {
		if t.now.works[kind] == nil {
			t.now.works[kind] = map[string]int{}
		}
		t.now.works[kind][id]++
	}
	if kind == "Match" {
		t.now.matched[to.Cluster]++
	}
	if kind != "Presence" {
		t.spoke = time.Now()
	}
}

func (t *tally) idle() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.spoke)
}

func (t *tally) snapshot() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.now.clone()
	out.in, out.out = t.meter.in.Load(), t.meter.out.Load()
	return out
}

// since is what was said after an earlier snapshot.
func (t *tally) since(before counts) counts {
	now := t.snapshot()
	subtract := func(m, earlier map[string]int) {
		for k, n := range earlier {
			if m[k] -= n; m[k] == 0 {
				delete(m, k)
			}
		}
	}
	subtract(now.events, before.events)
	subtract(now.size, before.size)
	subtract(now.matched, before.matched)
	for kind, works := range before.works {
		subtract(now.works[kind], works)
	}
	return now
}

func (c counts) bytes() int {
	total := 0
	for _, n := range c.size {
		total += n
	}
	return total
}

// String is what a test logs.
func (c counts) String() string {
	parts := make([]string, 0, len(c.events))
	for _, kind := range slices.Sorted(maps.Keys(c.events)) {
		parts = append(parts, fmt.Sprintf("%d %s of %d bytes", c.events[kind], kind, c.size[kind]))
	}
	return fmt.Sprintf("%d bytes of events (%s)", c.bytes(), strings.Join(parts, ", "))
}

// movedExactly checks that all of these works moved, both ways, and no others.
func (c counts) movedExactly(t testing.TB, want map[string]bool) {
	t.Helper()
	for _, kind := range []string{"Bundle", "Report"} {
		other, missing := 0, 0
		for id := range c.works[kind] {
			if !want[id] {
				other++
			}
		}
		for id := range want {
			if c.works[kind][id] == 0 {
				missing++
			}
		}
		if other > 0 || missing > 0 {
			t.Errorf("%s: %d works moved that did not change, %d did not that did", kind, other, missing)
		}
	}
}

// A meter is a door to a server that counts what passes.
type meter struct {
	address string
	in, out atomic.Int64 // From the server, and to it.
}

func newMeter(t testing.TB, server string) *meter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{address: l.Addr().String()}
	var open sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { m.pass(client, server) })
		}
	})
	return m
}

func (m *meter) pass(client net.Conn, server string) {
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	var both sync.WaitGroup
	carry := func(to, from net.Conn, count *atomic.Int64) {
		_, _ = io.Copy(counting{to, count}, from) // Ends with either connection.
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { carry(upstream, client, &m.out) })
	both.Go(func() { carry(client, upstream, &m.in) })
	both.Wait()
}

// since is what passed after an earlier count.
func (m *meter) since(before counts) string {
	return fmt.Sprintf("%d bytes to the broker and %d from it", m.out.Load()-before.out, m.in.Load()-before.in)
}

type counting struct {
	io.Writer
	count *atomic.Int64
}

// Write implements io.Writer.
func (c counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.count.Add(int64(n))
	return n, err
}
