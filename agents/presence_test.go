package agents_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

func TestAgentBeatsWhenItIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		instance := agents.NewInstance()
		_, stop := b.run(agents.Options{Instance: instance, ResyncInterval: 24 * time.Hour})
		b.settle(5 * time.Minute)
		if got := h.heard().presences; len(got) != 0 {
			t.Errorf("%d beats to a source that may be one of OCM's", len(got))
		}
		h.hello()
		b.settle(10 * time.Second)
		h.forget()
		b.settle(10 * time.Minute)
		beat := codec.Presence{Agent: "c1-work-agent", Instance: instance, Online: true}
		got := h.heard().presences
		if len(got) != 10 && len(got) != 9 {
			t.Errorf("%d beats in ten minutes of silence, want one per minute", len(got))
		}
		for _, p := range got {
			if diff := cmp.Diff(beat, p); diff != "" {
				t.Errorf("beat (-want +got):\n%s", diff)
			}
		}

		h.forget()
		for i := range 20 {
			h.want(work("hub1", "w", int64(i+1), "content"), false)
			b.settle(30 * time.Second)
		}
		if got := h.heard().presences; len(got) != 0 {
			t.Errorf("%d beats beside reports, which show as well that the agent is there", len(got))
		}

		h.forget()
		b.broker.Stop()
		b.settle(time.Hour)
		b.broker.Start()
		b.settle(10 * time.Second)
		if got := h.heard(); len(got.presences) != 0 || len(got.digests) != 1 {
			t.Errorf("%d beats and %d digests once the broker is back, want the digest only", len(got.presences), len(got.digests))
		}

		h.forget()
		stop()
		b.settle(time.Second)
		beat.Online = false
		if diff := cmp.Diff([]codec.Presence{beat}, h.heard().presences); diff != "" {
			t.Errorf("goodbye (-want +got):\n%s", diff)
		}
	})
}

// TestGoodbyeHoldsNothingUp: the broker takes nothing any more when the agent
// ends.
func TestGoodbyeHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		transport := &stalled{Transport: b.broker.Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1"}), on: make(chan struct{})}
		a, err := agents.New("c1", b.store, b.cluster, transport, agents.Options{Sources: []string{"hub1"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended time.Time
		var done sync.WaitGroup
		done.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
			ended = time.Now()
		})
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		transport.stall()
		stopped := time.Now()
		cancel()
		done.Wait()
		if took := ended.Sub(stopped); took > 3*time.Second {
			t.Errorf("Run ended %s after its context, want two seconds at most", took)
		}
		_ = transport.Close(context.Background())
	})
}

func TestLastWill(t *testing.T) {
	instance := digest.Key{1, 2, 3}
	cases := map[string]struct {
		reason string
		o      agents.Options
		want   brokers.Topic
		fails  bool
	}{
		"one source": {
			"it is told as the goodbye would be",
			agents.Options{Sources: []string{"hub1"}, Instance: instance},
			brokers.Topic{Lane: brokers.ToSource, Source: "hub1", Cluster: "c1", Key: "presence"},
			false,
		},
		"named twice": {
			"it is still one",
			agents.Options{Sources: []string{"hub1", "hub1"}, Instance: instance},
			brokers.Topic{Lane: brokers.ToSource, Source: "hub1", Cluster: "c1", Key: "presence"},
			false,
		},
		"several": {
			"a connection has one will",
			agents.Options{Sources: []string{"hub1", "hub2"}, Instance: instance},
			brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c1", Key: "presence"},
			false,
		},
		"no instance": {"New would draw another", agents.Options{Sources: []string{"hub1"}}, brokers.Topic{}, true},
		"no source":   {"there is nobody to tell", agents.Options{Instance: instance}, brokers.Topic{}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w, err := agents.LastWill("c1", c.o)
			if c.fails {
				if err == nil {
					t.Errorf("%s: LastWill = %+v, want an error", c.reason, w)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, w.Topic); diff != "" {
				t.Errorf("%s: topic (-want +got):\n%s", c.reason, diff)
			}
			if err := (brokers.Config{Role: brokers.RoleAgent, Name: "c1", Will: w}).Validate(); err != nil {
				t.Errorf("no driver takes it: %v", err)
			}
			_, m, err := codec.Decode(w.Event)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(codec.Presence{Agent: "c1-work-agent", Instance: instance}, m.(codec.Presence)); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWillIsSaidForAnAgentThatIsCutOff runs the whole way: the broker says the
// goodbye, and the agent that comes back shows that it is there.
func TestWillIsSaidForAnAgentThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		o := agents.Options{Sources: []string{"hub1"}, Instance: agents.NewInstance()}
		will, err := agents.LastWill("c1", o)
		if err != nil {
			t.Fatal(err)
		}
		b.will = will
		b.run(o)
		b.settle(time.Second)
		h.hello()
		b.settle(time.Minute)
		h.forget()
		b.broker.Partition("c1-client")
		b.settle(10 * time.Second)
		if got := h.heard().presences; len(got) != 0 {
			t.Errorf("the broker said goodbye after ten seconds: %+v", got)
		}
		b.settle(time.Minute)
		want := []codec.Presence{{Agent: "c1-work-agent", Instance: o.Instance}}
		if diff := cmp.Diff(want, h.heard().presences); diff != "" {
			t.Errorf("presences a minute after the agent was cut off (-want +got):\n%s", diff)
		}
		b.broker.Heal("c1-client")
		b.settle(10 * time.Second)
		if got := h.heard().digests; len(got) == 0 {
			t.Error("nothing came from the agent that is back")
		}
	})
}
