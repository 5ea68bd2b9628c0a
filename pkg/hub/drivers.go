package hub

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// allDrivers are the drivers that a hub can use, by URL scheme.
var allDrivers = brokers.Drivers{
	"mem":   mem.Open,
	"mqtt":  mqtt.Open,
	"mqtts": mqtt.Open,
	"nats":  nats.Open,
	"tls":   nats.Open,
}

// driverCollectors are the metrics of all drivers.
func driverCollectors() []prometheus.Collector {
	return slices.Concat(mqtt.Collectors(), nats.Collectors())
}
