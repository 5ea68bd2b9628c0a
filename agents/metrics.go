package agents

import "github.com/prometheus/client_golang/prometheus"

var (
	eventsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_events_total",
		Help: "Events received by the agent, by what became of them.",
	}, []string{"result"})

	worksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_works_total",
		Help: "Turns that works had, by what was done and whether it succeeded.",
	}, []string{"operation", "result"})

	publishedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_published_total",
		Help: "Events that the agent published, by result.",
	}, []string{"result"})
)

// Collectors returns the package's metrics, for a registry. They are shared by
// all agents of a process.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{eventsTotal, worksTotal, publishedTotal}
}
