// Package integration tests the whole system: real programs as processes, real
// API servers, real brokers.
//
// A scenario is a script under testdata/script, run once for every broker. The
// commands beside those of testscript are in commands_test.go:
//
//	broker start|stop|kill|wipe          the broker; wipe removes its data, too
//	hub start|stop|kill                  the hub
//	agent start|stop|kill CLUSTER        the agent of a cluster
//	agent join CLUSTER                   its namespace on the hub, as start makes it
//	apiserver stop|kill|restart CLUSTER  a cluster's API server, or that of "hub"
//	fleetcast ARGS...                    the CLI against the hub
//	object CLUSTER RESOURCE [NS/]NAME [JSONPATH WANT]
//	                                     an object is there, and a field of it is so
//	patch CLUSTER RESOURCE [NS/]NAME JSON, remove CLUSTER RESOURCE [NS/]NAME
//	publish LANE CLUSTER FILE            an event as somebody else would send it
//	await COMMAND...                     repeat a command until it succeeds
//	                                     ("await ! object ...": until it is gone,
//	                                     "await ! fleetcast ...": until it fails)
//	logged PROGRAM TEXT                  a program's log has the text
//	configmap FILE NAME BYTES            write a manifest of a certain size
//
// The brokers inside fleetcast-standalone need nothing installed; the tests
// with mosquitto, nats-server and containers have the build tag integration.
package integration
