// Package drivers lists every broker driver by the schemes of its URLs.
package drivers

import (
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// All opens every kind of broker there is.
var All = brokers.Drivers{
	"mem":   mem.Open,
	"mqtt":  mqtt.Open,
	"mqtts": mqtt.Open,
	"nats":  nats.Open,
	"tls":   nats.Open,
}
