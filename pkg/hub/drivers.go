package hub

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// driverCollectors are the metrics of all drivers that have some.
func driverCollectors() []prometheus.Collector {
	return slices.Concat(mqtt.Collectors(), nats.Collectors())
}
