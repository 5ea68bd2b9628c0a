package kube

import "github.com/prometheus/client_golang/prometheus"

// Collectors returns the metrics of the source, for the caller to register.
func (s *Source) Collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fleetcast_source_withheld_deletions",
			Help: "Deletions of works that wait for an operator's confirmation, because too many of a cluster's works were deleted at once.",
		}, func() float64 { return float64(s.withheldDeletions()) }),
	}
}

func (s *Source) withheldDeletions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.clusters {
		n += len(c.deletions.withheld)
	}
	return n
}
