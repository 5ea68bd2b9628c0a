// Package embedded runs message brokers inside this process: for the hub that
// is one process, and for tests. They are real brokers that speak to any client
// over the network.
//
// [StartMQTT] runs mochi, an MQTT 5 broker, and StartNATS a NATS server with
// JetStream. Fleets that need a broker which survives its machine, or more than
// one, run a broker of their own.
package embedded

// Stats are a broker's traffic with its clients.
type Stats struct {
	// BytesIn and BytesOut came from clients and went to them. For MQTT they are
	// all bytes but those of TLS and below; for NATS they are headers and bodies
	// of messages, JetStream's own among them.
	BytesIn, BytesOut int64

	// MessagesIn and MessagesOut are those published and those delivered, once
	// per subscriber and attempt; for NATS requests and answers count too.
	MessagesIn, MessagesOut int64
}
