// Package containers runs the broker drivers' conformance cases against brokers
// in containers, as users run them. It is a module of its own so that nobody
// who imports the project downloads a container client.
//
// The images are settings, FLEETCAST_MOSQUITTO_IMAGE and FLEETCAST_NATS_IMAGE.
// Where no registry can be reached, images.sh makes them from programs on this
// machine.
package containers
