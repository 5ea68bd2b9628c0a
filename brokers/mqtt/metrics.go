package mqtt

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// Every driver has these metrics under its own driver label, with the same
// help, as Prometheus requires of metrics of one name.
var driver = prometheus.Labels{"driver": "mqtt"}

var (
	connected = prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "fleetcast_broker_connected",
		Help:        "Connections to a broker that are up.",
		ConstLabels: driver,
	})
	reconnects = prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "fleetcast_broker_reconnects_total",
		Help:        "Connections to a broker that came up again after the first.",
		ConstLabels: driver,
	})
	received = prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "fleetcast_broker_events_received_total",
		Help:        "Events that came from a broker for a subscriber, redeliveries included.",
		ConstLabels: driver,
	})
	dropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name:        "fleetcast_broker_events_dropped_total",
		Help:        "Events that came from a broker and will not come again, though no subscriber took them, by reason.",
		ConstLabels: driver,
	}, []string{"reason"})
	published = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name:        "fleetcast_broker_events_published_total",
		Help:        "Events given to a broker, by result.",
		ConstLabels: driver,
	}, []string{"result"})
)

// Reasons for which events are dropped.
const (
	dropRejected      = "rejected"       // The subscriber rejected it.
	dropTopic         = "unknown_topic"  // The topic is none of ours.
	dropRetained      = "retained"       // OCM never retains, so it is nobody's current state.
	dropNotCloudEvent = "not_cloudevent" // It is no CloudEvent that we can read.
	dropUnclaimed     = "unclaimed"      // Nobody subscribed for so long that it held up others.
	dropOverflow      = "overflow"       // QoS 0, and the subscriber is behind.
)

// Collectors returns the metrics of all transports of this package. The program
// registers them once; nothing is registered by itself.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{connected, reconnects, received, dropped, published}
}

// countPublish counts the outcome of a Publish call. What failed is the event's
// or the caller's own doing: it was invalid, or its context ended.
func countPublish(err error, unheard bool) {
	result := "confirmed"
	switch {
	case err == nil && unheard:
		result = "no_subscriber"
	case err == nil:
	case errors.Is(err, brokers.ErrTooLarge):
		result = "too_large"
	case errors.Is(err, brokers.ErrRefused):
		result = "refused"
	case errors.Is(err, brokers.ErrUnavailable):
		result = "unavailable"
	default:
		result = "failed"
	}
	published.WithLabelValues(result).Inc()
}
