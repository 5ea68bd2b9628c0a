package hub

import (
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
)

// allDrivers are the drivers that a hub can use.
var allDrivers = brokers.Drivers{"mem": mem.Open}
