package agents_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// TestStandingIsMeasured: whether the agent is in sync is said of the sources
// that can confirm it, and of no other.
func TestStandingIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.source = b.listen("hub2")
		a, _ := b.run(agents.Options{Sources: []string{"hub1", "hub2"}})
		registry := prometheus.NewPedanticRegistry()
		for _, c := range a.Collectors() {
			if err := registry.Register(c); err != nil {
				t.Fatal(err)
			}
		}
		want := func(when, text string) {
			t.Helper()
			if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "fleetcast_agent_in_sync", "fleetcast_agent_unclaimed_works"); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		b.settle(time.Second)
		want("before any source said that it knows digests", "")
		h.hello()
		b.settle(time.Minute)
		want("after a match", `
			# HELP fleetcast_agent_in_sync 1 if the source confirmed that what the agent holds, and said of it, is what the source expects. Not there for OCM sources.
			# TYPE fleetcast_agent_in_sync gauge
			fleetcast_agent_in_sync{source="hub1"} 1
			# HELP fleetcast_agent_unclaimed_works Works of the source that it does not know, as it last said. Not there for OCM sources.
			# TYPE fleetcast_agent_unclaimed_works gauge
			fleetcast_agent_unclaimed_works{source="hub1"} 0
		`)
		d := h.heard().digests[0]
		h.mute(true)
		h.tell(codec.Match{Source: "hub1", Instance: d.Instance, Term: 1, Spec: d.Spec.Short(), Status: d.Status.Short(), Unclaimed: 7}, codec.Announce)
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Second)
		want("after a change that was not confirmed", `
			# HELP fleetcast_agent_in_sync 1 if the source confirmed that what the agent holds, and said of it, is what the source expects. Not there for OCM sources.
			# TYPE fleetcast_agent_in_sync gauge
			fleetcast_agent_in_sync{source="hub1"} 0
			# HELP fleetcast_agent_unclaimed_works Works of the source that it does not know, as it last said. Not there for OCM sources.
			# TYPE fleetcast_agent_unclaimed_works gauge
			fleetcast_agent_unclaimed_works{source="hub1"} 7
		`)
	})
}

// TestLegsAreMeasured compares what all agents of the process counted before and
// after one work went its way.
func TestLegsAreMeasured(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, c := range agents.Collectors() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	seconds := func(leg string) (count uint64, sum float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "fleetcast_propagation_seconds" && m.GetLabel()[0].GetValue() == leg {
					return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
				}
			}
		}
		return 0, 0
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(agents.Options{})
		b.settle(time.Second)
		deliveredBefore, secondsBefore := seconds("delivered")
		appliedBefore, applyingBefore := seconds("applied")
		b.cluster.block, b.cluster.blocked = make(chan struct{}), make(chan struct{}, 100)
		e := b.encode(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(3 * time.Second) // On its way.
		b.publishEvent(e)
		<-b.cluster.blocked
		b.settle(5 * time.Second)
		close(b.cluster.block)
		b.settle(time.Hour)
		delivered, deliveredSeconds := seconds("delivered")
		applied, appliedSeconds := seconds("applied")
		if n, took := delivered-deliveredBefore, deliveredSeconds-secondsBefore; n != 1 || took < 3 || took > 3.1 {
			t.Errorf("%d deliveries that took %.3f s, want one of 3 s", n, took)
		}
		if n, took := applied-appliedBefore, appliedSeconds-applyingBefore; n != 1 || took < 5 || took > 5.1 {
			t.Errorf("%d applications that took %.3f s, want one of 5 s", n, took)
		}
	})
}
