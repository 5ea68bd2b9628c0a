// Package mqtt carries events over an MQTT 5 broker: mosquitto, EMQX, HiveMQ,
// VerneMQ, a cloud's, or the one in package embedded.
//
// # Address
//
// The URL is mqtt://host:1883 or mqtts://host:8883; the port may be left out.
// User and password may be in it, or in the configuration. Query parameters,
// all optional:
//
//	topics=sources/clusters  the two words of the topics; Maestro has sources/consumers
//	share=group              a source shares the reports with the group's other members
//	session-expiry=24h       how long the broker keeps what comes while away, up to 168h
//	keepalive=30s            how soon a dead connection is noticed, 5s to 18h
//	receive-maximum=64       events received but not settled; 1024 for a source
//	window=128               events published but not confirmed; the broker may lower it
//	max-packet=1048576       bytes of an event, both ways; the broker may lower it
//	reload=1m                how often certificate and key are looked at
//
// Topics and events are spelled as OCM's peers do, so that these work at the
// other end. A topic has no place for the Key of a [brokers.Topic]. Events of
// other peers are also read in structured mode, and with the attribute names of
// the CloudEvents MQTT binding, which have no ce- prefix.
//
// A group is not for several dispatchers of one source, of which only one may
// run at a time; it is for readers of reports that keep them in one place, as
// Maestro's servers do, and for hubs behind one leader election, where a former
// leader's session must not keep a copy of every report.
//
// # Delivery
//
// Everything has QoS 1, in a session that the broker keeps while this identity
// is away. An event is acknowledged to the broker once its subscriber has
// settled it. MQTT wants acknowledgements in the order of arrival and has none
// that says no; so an event that was settled with an error other than
// brokers.ErrReject is handed over again by the driver, after a pause that
// grows to half a minute, until it is settled well or the connection is
// renewed, when the broker sends it again.
//
// Meanwhile, later events of the same topic with the same resourceid wait behind
// it, as do those without one behind an event without one. What of that was
// handed over already comes again after it, even if it was settled, so that the
// newest event is the last one seen. All others are handed over, but not more
// than the Receive Maximum, counted from the failed one. The driver sets no bound
// to the attempts: an event that fails for good stops the flow of its connection,
// and only its subscriber can tell and reject it.
//
// Whether an event survives the broker is the broker's matter: mosquitto writes
// to disk only if told so, and every half hour.
//
// An identity is for one process. A client that loses its session to another of
// its client ID says so and leaves it to that for a minute at least, ever longer
// if it goes on.
//
// # Wills
//
// A [brokers.Will] is the will message of MQTT 5, with its will delay. Brokers
// publish it under the permissions of its owner, mosquitto without a word if
// they are missing. The session's expiry cuts the delay short. A connection
// that is renewed keeps a will that has a delay.
//
// # Subscriptions that end
//
// The end of a Subscribe call does not end the subscription at the broker, which
// goes on collecting for the next process. What was not settled, and what comes
// afterwards, waits for a Subscribe call with a matching filter, in this process
// or the next. If others are still subscribed, though, it would hold up their
// acknowledgements: when it fills the Receive Maximum for half a minute, the
// oldest is given up and counted as dropped. The same goes for events of a
// filter that only an earlier process asked for.
//
// # Metrics
//
// [Collectors] are to be registered by the program, once.
package mqtt
