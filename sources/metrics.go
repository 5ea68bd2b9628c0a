package sources

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// Values of the type label.
const (
	typeBundle       = "bundle"
	typeReport       = "report"
	typeSpecResync   = "spec_resync"
	typeStatusResync = "status_resync"
	typeUnknown      = "unknown"
)

// Values of the result label.
const (
	resultOK          = "ok"
	resultMalformed   = "malformed"
	resultUnknownType = "unknown_type"
	resultUnexpected  = "unexpected"
	resultMismatch    = "mismatch"
	resultUnavailable = "unavailable"
	resultTooLarge    = "too_large"
	resultRefused     = "refused"
	resultError       = "error"
)

// verdictFailed counts, beside the verdicts, reports that could not be saved.
const verdictFailed Verdict = "failed"

type metrics struct {
	events       *prometheus.CounterVec
	publish      prometheus.Histogram
	bytes        prometheus.Counter
	reports      *prometheus.CounterVec
	refused      prometheus.Counter
	unknownWorks prometheus.Counter
	panics       prometheus.Counter
	depth        []prometheus.Collector
}

func newMetrics(d *Dispatcher) *metrics {
	depth := func(name string, length func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "fleetcast_source_queue_depth",
			Help:        "Keys that wait for a worker.",
			ConstLabels: prometheus.Labels{"queue": name},
		}, func() float64 { return float64(length()) })
	}
	return &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetcast_events_total",
			Help: "Events sent to and received from clusters, by what became of them.",
		}, []string{"direction", "type", "result"}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleetcast_publish_seconds",
			Help: "Time until the broker confirmed an event, the wait for its window included.",
			// From a broker on the same machine to one whose window is full.
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetcast_publish_bytes_total",
			Help: "Size of the events that the broker confirmed.",
		}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetcast_source_reports_total",
			Help: "Reports of clusters, by the source's verdict.",
		}, []string{"verdict"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetcast_source_refused_works_total",
			Help: "Works, counted per generation, that cannot be sent as they are.",
		}),
		unknownWorks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetcast_source_unknown_works_total",
			Help: "Works listed by clusters that the source does not hold.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetcast_source_panics_total",
			Help: "Calls of the source that panicked and are tried again.",
		}),
		depth: []prometheus.Collector{
			depth("works", d.works.Len),
			depth("reports", d.reports.Len),
			depth("clusters", d.clusters.Len),
		},
	}
}

// Collectors returns the metrics of this dispatcher. The process registers them.
func (d *Dispatcher) Collectors() []prometheus.Collector {
	m := d.metrics
	return append([]prometheus.Collector{m.events, m.publish, m.bytes, m.reports, m.refused, m.unknownWorks, m.panics}, m.depth...)
}

func (m *metrics) received(typ, result string) {
	m.events.WithLabelValues("received", typ, result).Inc()
}

func (m *metrics) published(typ string, size int, took time.Duration, err error) {
	m.events.WithLabelValues("sent", typ, publishResult(err)).Inc()
	if err == nil {
		m.publish.Observe(took.Seconds())
		m.bytes.Add(float64(size))
	}
}

func (m *metrics) reported(v Verdict) { m.reports.WithLabelValues(string(v)).Inc() }

func publishResult(err error) string {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, brokers.ErrUnavailable):
		return resultUnavailable
	case errors.Is(err, brokers.ErrTooLarge):
		return resultTooLarge
	case errors.Is(err, brokers.ErrRefused):
		return resultRefused
	default:
		return resultError
	}
}
