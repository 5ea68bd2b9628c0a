package sources_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// begins counts the leads of a source.
type begins struct {
	*memory.Source

	mu sync.Mutex
	n  int
}

func (s *begins) Begin(ctx context.Context, above int64) (string, int64, error) {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
	return s.Source.Begin(ctx, above)
}

func (s *begins) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// A hub is a dispatcher that can be stopped and started again.
type hub struct {
	src    *begins
	wire   brokers.Transport
	d      *sources.Dispatcher
	cancel context.CancelFunc
	done   chan error
}

func (h *hub) start(ctx context.Context, b *mem.Broker, name string) {
	h.wire = b.Open(brokers.Config{Role: brokers.RoleSource, Name: name})
	h.d = sources.NewDispatcher(sourceID, h.src, h.wire, sources.Options{})
	h.src.Notify(h.d.Changed)
	ctx, h.cancel = context.WithCancel(ctx)
	h.done = make(chan error, 1)
	go func() { h.done <- h.d.Run(ctx) }()
}

func (h *hub) stop(t *testing.T) {
	t.Helper()
	h.cancel()
	if err := <-h.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := h.wire.Close(t.Context()); err != nil && !errors.Is(err, brokers.ErrClosed) { // A fenced hub closed it.
		t.Errorf("close: %v", err)
	}
}

func (h *hub) fenced() bool { return errors.Is(h.d.Ready(), sources.ErrFenced) }

// TestOneOfTwoHubsLeads over real ends of a broker, whatever the hubs remember
// and whichever comes first: one is fenced, and all clusters follow the other.
func TestOneOfTwoHubsLeads(t *testing.T) {
	for name, second := range map[string]func(first *memory.Source, led int64) *memory.Source{
		"copy of the state":  func(first *memory.Source, _ int64) *memory.Source { return first.Snapshot() },
		"state of its own":   func(*memory.Source, int64) *memory.Source { return memory.New(sourceID) },
		"led more often":     func(_ *memory.Source, led int64) *memory.Source { return ledBefore(led + 7) },
		"led as often":       func(_ *memory.Source, led int64) *memory.Source { return ledBefore(led - 1) },
		"the very same lead": nil,
	} {
		for _, kind := range []string{"kind", "nasty"} {
			for seed := range uint64(5) {
				t.Run(fmt.Sprintf("%s %s %d", name, kind, seed), func(t *testing.T) {
					o := mem.Options{Seed: seed}
					if kind == "nasty" {
						o = mem.Options{Seed: seed, Delay: 2 * time.Second, Duplicate: 0.3, Drop: 0.2}
					}
					synctest.Test(t, func(t *testing.T) { twoHubs(t, o, second) })
				})
			}
		}
	}
}

func ledBefore(term int64) *memory.Source {
	src := memory.New(sourceID)
	if term > 0 {
		_, _, _ = src.Begin(context.Background(), term-1)
	}
	return src
}

func twoHubs(t *testing.T, o mem.Options, other func(*memory.Source, int64) *memory.Source) {
	b, chance := mem.NewBroker(o), rand.New(rand.NewPCG(o.Seed, 1))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var clusters []*cluster
	for i := range 2 + chance.IntN(5) {
		c := newCluster(b, fmt.Sprint("c", i))
		c.instance = digest.Key{byte(i + 1)}
		clusters = append(clusters, c)
		running.Go(func() { _ = c.run(ctx) })
	}
	first := &hub{src: &begins{Source: ledBefore(int64(chance.IntN(3)))}}
	var copied *memory.Source
	if other == nil {
		copied = first.src.Snapshot() // Both begin as if they were one.
	}
	names := map[*hub]string{first: "first"}
	first.start(ctx, b, names[first])
	pass(time.Duration(chance.IntN(120)) * time.Second)
	if other != nil {
		_, led, _ := first.src.Snapshot().Begin(ctx, 0)
		copied = other(first.src.Source, led-1)
	}
	second := &hub{src: &begins{Source: copied}}
	names[second] = "second"
	second.start(ctx, b, names[second])
	defer func() { first.cancel(); second.cancel(); <-first.done; <-second.done }()

	fenced, leads := decided(t, first, second, clusters)
	if n := first.src.count() + second.src.count(); n > 10 {
		t.Errorf("%d leads until one of two hubs led", n)
	}

	// The operator restarts the one that is fenced, and not the other one.
	fenced.stop(t)
	fenced.start(ctx, b, names[fenced])
	pass(time.Duration(chance.IntN(30)) * time.Second)
	decided(t, fenced, leads, clusters)
}

// decided waits until one of two hubs is fenced and all clusters follow the
// other one.
func decided(t *testing.T, a, b *hub, clusters []*cluster) (fenced, leads *hub) {
	t.Helper()
	for range 6 * 60 {
		pass(10 * time.Second)
		if a.fenced() == b.fenced() {
			continue
		}
		fenced, leads = a, b
		if b.fenced() {
			fenced, leads = b, a
		}
		_, next, _ := leads.src.Snapshot().Begin(t.Context(), 0)
		follow := 0
		for _, c := range clusters {
			if c.follows() == next-1 {
				follow++
			}
		}
		if follow == len(clusters) {
			pass(time.Hour)
			if leads.fenced() || !fenced.fenced() {
				t.Fatal("it was decided, and then it was not")
			}
			return fenced, leads
		}
	}
	follows := map[string]int64{}
	for _, c := range clusters {
		follows[c.name] = c.follows()
	}
	t.Fatalf("not decided in an hour: ready %v and %v after %d and %d leads, clusters follow %v",
		a.d.Ready(), b.d.Ready(), a.src.count(), b.src.count(), follows)
	return nil, nil
}

func (c *cluster) follows() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// TestOneClusterCannotUseTermsUp: it answers each hello at once with a term
// above, and the others later with what they heard.
func TestOneClusterCannotUseTermsUp(t *testing.T) {
	for name, follows := range map[string]bool{"never follows": false, "follows first": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := &begins{Source: memory.New(sourceID)}, &fakeTransport{}
				var honest []*scripted
				for i := range 5 {
					honest = append(honest, newScripted(t, f, fmt.Sprint("c", i)))
				}
				bad := newScripted(t, f, "bad")
				say := func(a *scripted, h codec.Hello, term int64, after time.Duration) {
					spec, status := a.sets()
					e := encode(t, codec.Digest{
						Agent: a.cluster + "-agent", Instance: a.instance, Epoch: h.Epoch, Term: term,
						Spec: spec.Root(), Status: status.Root(), Capabilities: []string{codec.CapDigest},
					}, codec.Announce)
					time.AfterFunc(after, func() {
						f.sub.Handle(context.Background(), brokers.NewDelivery(toSource(a.cluster), e, "", func(error) {}))
					})
				}
				f.publish = func(to brokers.Topic, m codec.Message) error {
					h, ok := m.(codec.Hello)
					if !ok {
						return nil
					}
					for _, a := range honest {
						if to.Lane == brokers.ToAllClusters || to.Cluster == a.cluster {
							say(a, h, h.Term, 20*time.Millisecond)
						}
					}
					if follows {
						say(bad, h, h.Term, time.Millisecond)
					}
					say(bad, h, h.Term+1, 2*time.Millisecond)
					return nil
				}
				d := run(t, src, f, sources.Options{})
				pass(time.Second)
				f.ready()
				for range 12 * 60 {
					for _, a := range append(honest, bad) {
						a.beats(true)
					}
					bad.term += 5
					bad.epoch = "~"
					bad.digest()
					pass(5 * time.Second)
				}
				if n := src.count(); n > 10 {
					t.Errorf("one cluster had the hub write %d terms in an hour", n)
				}
				if n := len(f.terms()); n > 20 {
					t.Errorf("one cluster had the hub say hello to all %d times in an hour", n)
				}
				if err := d.Ready(); err != nil {
					t.Errorf("Ready: %v", err)
				}
			})
		})
	}
}
