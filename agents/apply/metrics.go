package apply

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	applied *prometheus.CounterVec
	writes  *prometheus.CounterVec
	// orphaned counts AppliedManifestWorks whose works the agent does not hold.
	orphaned *prometheus.GaugeVec
	evicted  prometheus.Counter
}

// Values of the label state of orphaned: what becomes of them.
const (
	orphanKept     = "kept"
	orphanEvicting = "evicting"
)

func newMetrics(r prometheus.Registerer) (metrics, error) {
	m := metrics{
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetcast_agent_apply_total",
			Help: "Manifests held against the cluster, by what came of it.",
		}, []string{"result"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetcast_agent_api_writes_total",
			Help: "Writing requests to the cluster's API server, by verb.",
		}, []string{"verb"}),
		orphaned: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fleetcast_agent_orphaned_works",
			Help: "Works that left objects on the cluster and that the agent does not hold, by whether these are kept, since the agent does not remember that the works were deleted, or are being evicted.",
		}, []string{"state"}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetcast_agent_evicted_works_total",
			Help: "Deleted works whose objects were there again, and were removed.",
		}),
	}
	for _, state := range []string{orphanKept, orphanEvicting} {
		m.orphaned.WithLabelValues(state)
	}
	for _, a := range []action{created, configured, unchanged, observed, rejected, failed} {
		m.applied.WithLabelValues(string(a))
	}
	for _, verb := range writeVerbs {
		m.writes.WithLabelValues(verb)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.applied, m.writes, m.orphaned, m.evicted} {
		if err := r.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}

// writeVerbs are the methods that change a cluster, as the API calls them.
var writeVerbs = map[string]string{
	http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

type writeCounter func(verb string)

func (m metrics) countWrite(verb string) { m.writes.WithLabelValues(verb).Inc() }

// countWrites counts at the boundary what goes over it, whoever asked for it.
type countWrites struct {
	next  http.RoundTripper
	count writeCounter
}

// RoundTrip implements http.RoundTripper.
func (c countWrites) RoundTrip(r *http.Request) (*http.Response, error) {
	if verb, ok := writeVerbs[r.Method]; ok {
		c.count(verb)
	}
	return c.next.RoundTrip(r)
}
