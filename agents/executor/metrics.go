package executor

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ reviews *prometheus.CounterVec }

func newMetrics(r prometheus.Registerer) (metrics, error) {
	m := metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_access_reviews_total",
		Help: "Questions to the cluster's API server about the rights of executors, by answer.",
	}, []string{"result"})}
	for _, result := range []string{"allowed", "denied", "error"} {
		m.reviews.WithLabelValues(result)
	}
	if r == nil {
		return m, nil
	}
	return m, r.Register(m.reviews)
}

func (m metrics) count(result string) { m.reviews.WithLabelValues(result).Inc() }
