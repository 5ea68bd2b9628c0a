package sources_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
)

const sourceID = "hub1"

// fakeSource is a sources.Source and sources.Refuser of values.
type fakeSource struct {
	mu      sync.Mutex
	works   map[sources.Key]codec.Bundle
	held    map[string][]sources.Held // By cluster; default: from works.
	bundles int                       // Calls of Bundle.
	loadErr error                     // Of Held and Clusters.
	refused []string
	taken   []codec.Report

	// bundleErr and report, if set, decide what the methods return.
	bundleErr func(sources.Key) error
	report    func(codec.Report) (sources.Verdict, error)
}

func newSource(bundles ...codec.Bundle) *fakeSource {
	s := &fakeSource{works: map[sources.Key]codec.Bundle{}, held: map[string][]sources.Held{}}
	for _, b := range bundles {
		s.put(b)
	}
	return s
}

func (s *fakeSource) put(b codec.Bundle) sources.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := sources.Key{Cluster: b.Cluster, ID: b.ID}
	s.works[k] = b
	return k
}

// fail has Held and Clusters fail.
func (s *fakeSource) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loadErr = err
}

func (s *fakeSource) Bundle(_ context.Context, k sources.Key) (codec.Bundle, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles++
	b, ok := s.works[k]
	if s.bundleErr != nil {
		if err := s.bundleErr(k); err != nil {
			return b, false, err
		}
	}
	return b, ok, nil
}

func (s *fakeSource) Held(_ context.Context, cluster string) ([]sources.Held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loadErr != nil {
		return nil, s.loadErr
	}
	if held, ok := s.held[cluster]; ok {
		return held, nil
	}
	var held []sources.Held
	for k, b := range s.works {
		if k.Cluster == cluster {
			held = append(held, sources.Held{
				ID: k.ID, Generation: b.Generation, Deleting: b.Deleting(), StatusHash: strings.Repeat("ab", 32),
			})
		}
	}
	return held, nil
}

func (s *fakeSource) Clusters(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loadErr != nil {
		return nil, s.loadErr
	}
	set := map[string]bool{}
	for k := range s.works {
		set[k.Cluster] = true
	}
	for c := range s.held {
		set[c] = true
	}
	return slices.Sorted(maps.Keys(set)), nil
}

func (s *fakeSource) Report(_ context.Context, r codec.Report) (sources.Verdict, error) {
	s.mu.Lock()
	s.taken = append(s.taken, r)
	decide := s.report
	s.mu.Unlock()
	if decide != nil {
		return decide(r)
	}
	return sources.Accepted, nil
}

func (s *fakeSource) Refused(_ context.Context, k sources.Key, generation int64, reason error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := "sent"
	if reason != nil {
		why = "invalid"
		switch {
		case sources.TooLarge(reason):
			why = "too large"
		case sources.RefusedByBroker(reason):
			why = "refused"
		}
	}
	s.refused = append(s.refused, fmt.Sprintf("%s/%s@%d %s", k.Cluster, k.ID, generation, why))
	return nil
}

// heard is what Refused was called with.
func (s *fakeSource) heard() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

func (s *fakeSource) sequences() []codec.Sequence {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []codec.Sequence
	for _, r := range s.taken {
		out = append(out, r.Sequence)
	}
	return out
}

// fakeTransport does what the test says, and nothing by itself.
type fakeTransport struct {
	// publish, if set, decides what Publish returns for a message.
	publish func(brokers.Topic, codec.Message) error

	mu        sync.Mutex
	sub       brokers.Subscription
	limit     func(packed bool) error // By whether the event is compressed.
	published []string
	packed    []string // What was published compressed.
	topics    []brokers.Topic
	messages  []codec.Message
	// broadcasts is what went to all clusters; it is in none of the others.
	broadcasts []codec.Message

	closed atomic.Bool
}

func (f *fakeTransport) Publish(_ context.Context, to brokers.Topic, e event.Event) error {
	packed := codec.Compressed(e)
	if packed {
		var err error
		if e, err = codec.NewCompressor().Decompress(e); err != nil {
			return err
		}
	}
	action, m, err := codec.Decode(e)
	if err != nil {
		return err
	}
	if f.publish != nil {
		if err := f.publish(to, m); err != nil {
			return err
		}
	}
	f.mu.Lock()
	limit := f.limit
	f.mu.Unlock()
	if limit != nil {
		if err := limit(packed); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if to.Lane == brokers.ToAllClusters {
		f.broadcasts = append(f.broadcasts, m)
		return nil
	}
	f.topics = append(f.topics, to)
	f.messages = append(f.messages, m)
	f.published = append(f.published, describe(action, m))
	if packed {
		f.packed = append(f.packed, describe(action, m))
	}
	return nil
}

func describe(action codec.Action, m codec.Message) string {
	switch m := m.(type) {
	case codec.Bundle:
		return fmt.Sprintf("%s/%s@%d %s", m.Cluster, m.ID, m.Generation, action)
	case codec.StatusResync:
		return fmt.Sprintf("%s status? %d", m.Cluster, len(m.Hashes))
	case codec.Hello:
		return "hello"
	case codec.Match:
		return fmt.Sprintf("match, %d unclaimed", m.Unclaimed)
	case codec.Buckets:
		return fmt.Sprintf("buckets, %d works, spec %v, status %v", m.Works, m.Spec != nil, m.Status != nil)
	}
	return fmt.Sprintf("%T", m)
}

func (f *fakeTransport) Subscribe(ctx context.Context, s brokers.Subscription) error {
	f.mu.Lock()
	f.sub = s
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (f *fakeTransport) Close(context.Context) error {
	f.closed.Store(true)
	return nil
}

// ready establishes a session.
func (f *fakeTransport) ready() {
	synctest.Wait() // Run subscribes first.
	f.sub.Ready(brokers.Session{})
	synctest.Wait()
}

// take returns what was published since the last call, sorted: keys of
// different clusters have no order.
func (f *fakeTransport) take() []string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.published
	f.published = nil
	slices.Sort(out)
	return out
}

// takeBundles is take without the questions for statuses.
func (f *fakeTransport) takeBundles() []string {
	return slices.DeleteFunc(f.take(), func(s string) bool { return strings.Contains(s, "status?") })
}

// deliver hands an event over as the broker would and returns how it is
// settled: read it after synctest.Wait.
func (f *fakeTransport) deliver(t *testing.T, from brokers.Topic, e event.Event) *settlement {
	t.Helper()
	got := &settlement{}
	f.sub.Handle(t.Context(), brokers.NewDelivery(from, e, "", got.done))
	return got
}

type settlement struct {
	mu    sync.Mutex
	times int
	err   error
}

func (s *settlement) done(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times++
	s.err = err
}

// String is open, acknowledged, rejected or kept.
func (s *settlement) String() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.times > 1:
		return fmt.Sprintf("settled %d times", s.times)
	case s.times == 0:
		return "open"
	case s.err == nil:
		return "acknowledged"
	case errors.Is(s.err, brokers.ErrReject):
		return "rejected"
	}
	return "kept"
}

// run runs a dispatcher until the test ends.
func run(t *testing.T, src sources.Source, f brokers.Transport, o sources.Options) *sources.Dispatcher {
	t.Helper()
	d := sources.NewDispatcher(sourceID, src, f, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return d
}

// pass lets time go by in the bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func bundle(cluster, id string, generation int64) codec.Bundle {
	return codec.Bundle{
		ID: id, Source: sourceID, Cluster: cluster, Generation: generation,
		Metadata: []byte(`{"name":"` + id + `"}`),
		Payload:  []byte(`{"manifests":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}]}`),
	}
}

func deletion(cluster, id string, generation int64) codec.Bundle {
	b := bundle(cluster, id, generation)
	b.Payload, b.DeletedAt = nil, time.Unix(1700000000, 0).UTC()
	return b
}

func report(t *testing.T, b codec.Bundle, sequence codec.Sequence) codec.Report {
	t.Helper()
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: workv1.WorkApplied, Status: metav1.ConditionTrue, Reason: "AppliedManifestWorkComplete", ObservedGeneration: b.Generation,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r.Agent, r.Sequence = b.Cluster+"-agent", sequence
	return r
}

func encode(t *testing.T, m codec.Message, a codec.Action) event.Event {
	t.Helper()
	e, err := m.Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func toSource(cluster string) brokers.Topic {
	return brokers.Topic{Lane: brokers.ToSource, Source: sourceID, Cluster: cluster}
}
