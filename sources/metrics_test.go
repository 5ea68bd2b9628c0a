package sources_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// value is what a dispatcher's metric says: the sum over all that have these
// labels, given as names and values; of a histogram, how much was observed.
func value(t *testing.T, d *sources.Dispatcher, name string, labels ...string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(d.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			matches := true
			for pair := range slices.Chunk(labels, 2) {
				matches = matches && has[pair[0]] == pair[1]
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// countEvents is fleetcast_events_total of received events with this result.
func countEvents(t *testing.T, d *sources.Dispatcher, result string) float64 {
	t.Helper()
	return value(t, d, "fleetcast_events_total", "direction", "received", "result", result)
}

func TestMetricsAreWellFormed(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(sources.NewDispatcher(sourceID, newSource(), &fakeTransport{}, sources.Options{}).Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestOldestUnacknowledged: the age of a change that its cluster has not
// reported on, apart for clusters that are known to be away.
func TestOldestUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		expect := func(when string, flying, parked time.Duration) {
			t.Helper()
			if got := value(t, d, "fleetcast_oldest_unacked_spec_age_seconds"); got != flying.Seconds() {
				t.Errorf("%s: oldest unacknowledged %vs, want %s", when, got, flying)
			}
			if got := value(t, d, "fleetcast_oldest_parked_spec_age_seconds"); got != parked.Seconds() {
				t.Errorf("%s: oldest parked %vs, want %s", when, got, parked)
			}
		}
		expect("at rest", 0, 0)
		away := newScripted(t, f, "away")
		away.syncs()
		away.beats(false)
		start := time.Now()
		put(t, src, "away", "w")
		put(t, src, "never", "w")
		pass(time.Minute)
		expect("one cluster away, one never seen", time.Since(start), time.Since(start))

		never := newScripted(t, f, "never")
		b := put(t, src, "never", "w")
		again := time.Now()
		pass(time.Minute)
		expect("the newest version counts", time.Since(again), time.Since(start))
		never.takes(b)
		never.reports(b)
		synctest.Wait()
		expect("reported", 0, time.Since(start))

		away.talk()
		expect("back, and not reported yet", time.Since(start), 0)
		b, _, _ = src.Bundle(t.Context(), src.Key("away", "w"))
		away.reports(b)
		synctest.Wait()
		expect("all is reported", 0, 0)
		put(t, src, "never", "refused")
		put(t, src, "never", "gone")
		gone := remove(t, src, "never", "gone")
		never.reports(gone)
		pass(time.Minute)
		never.reports(put(t, src, "never", "refused"))
		synctest.Wait()
		expect("deleted", 0, 0)
	})
}

func TestPropagation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		b := put(t, src, "c1", "w")
		pass(time.Second)
		a.takes(b)
		for range 3 {
			a.reports(b) // Reported again, it took no time again.
		}
		synctest.Wait()
		for _, leg := range []string{"published", "reported", "total"} {
			if n := value(t, d, "fleetcast_propagation_seconds", "leg", leg); n != 1 {
				t.Errorf("leg %s observed %v times, want once", leg, n)
			}
		}
	})
}

func TestClustersByState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		for i, online := range []bool{true, true, false} {
			a := newScripted(t, f, string(rune('a'+i)))
			a.syncs()
			a.beats(online)
		}
		newScripted(t, f, "ocm").asks()
		synctest.Wait()
		for state, want := range map[string]float64{"online": 2, "offline": 1, "unknown": 1} {
			if got := value(t, d, "fleetcast_clusters", "state", state); got != want {
				t.Errorf("%v clusters %s, want %v", got, state, want)
			}
		}
		if got := value(t, d, "fleetcast_digests_total", "result", "match"); got != 3 {
			t.Errorf("%v digests matched, want 3", got)
		}
		if got := value(t, d, "fleetcast_source_sessions_total", "resumed", "false"); got != 1 {
			t.Errorf("%v sessions, want 1", got)
		}
	})
}
