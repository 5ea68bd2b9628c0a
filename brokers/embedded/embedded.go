// Package embedded runs message brokers inside this process: for the hub that
// is one process, and for tests. They are real brokers that speak to any client
// over the network.
//
// [StartMQTT] runs mochi, an MQTT 5 broker, and StartNATS a NATS server with
// JetStream. Fleets that need a broker which survives its machine, or more than
// one, run a broker of their own.
//
// Under load, an event that is published in the very moment in which an MQTT
// client resumes its session may wait for the client's next connection, or be
// lost: mochi hands sessions over piece by piece. Both ends compare what they
// hold, so that costs time.
package embedded
