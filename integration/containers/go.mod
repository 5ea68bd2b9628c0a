module github.com/fleetcast-io/fleetcast/integration/containers

go 1.26.0

require (
	github.com/fleetcast-io/fleetcast v0.0.0
	github.com/moby/moby/api v1.55.0
	github.com/testcontainers/testcontainers-go v0.44.0
)

replace github.com/fleetcast-io/fleetcast => ../..
