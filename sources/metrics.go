package sources

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Values of the type label.
const (
	typeBundle       = "bundle"
	typeReport       = "report"
	typeSpecResync   = "spec_resync"
	typeStatusResync = "status_resync"
	typeHello        = "hello"
	typeDigest       = "digest"
	typeMatch        = "match"
	typeBuckets      = "buckets"
	typeEntries      = "entries"
	typePresence     = "presence"
	typeUnknown      = "unknown"
)

// Values of the result label.
const (
	resultOK                 = "ok"
	resultStale              = "stale"
	resultDuplicate          = "duplicate"
	resultMalformed          = "malformed"
	resultMismatch           = "mismatch"
	resultForeignCluster     = "foreign_cluster"
	resultTooLarge           = "too_large"
	resultUnknownType        = "unknown_type"
	resultUnsupportedVersion = "unsupported_version"
	resultUnknownEncoding    = "unknown_encoding"
	resultBomb               = "bomb"
	resultUnexpected         = "unexpected"
	resultUnknownWork        = "unknown_work"
	resultInvalid            = "invalid"
	resultUnsaved            = "unsaved"
	resultOverflow           = "overflow"
	resultUnavailable        = "unavailable"
	resultRefused            = "refused"
	resultError              = "error"
)

// Values of the leg label.
const (
	legPublished = "published" // From the change to the broker.
	legReported  = "reported"  // From the broker to the report that was taken.
	legTotal     = "total"     // From the change to the report that was taken.
)

// Values of the direction label.
const (
	directionSent     = "sent"
	directionReceived = "received"
)

// verdictFailed counts, beside the verdicts, reports that could not be saved.
const verdictFailed Verdict = "failed"

// results are the result labels of reports by what the source said of them.
var results = map[Verdict]string{
	Accepted:      resultOK,
	Unordered:     resultOK,
	Unchanged:     resultDuplicate,
	Stale:         resultStale,
	Foreign:       resultForeignCluster,
	Unknown:       resultUnknownWork,
	Invalid:       resultInvalid,
	verdictFailed: resultUnsaved,
}

type metrics struct {
	events       *prometheus.CounterVec
	publish      prometheus.Histogram
	bytes        prometheus.Counter
	compression  *prometheus.CounterVec
	reports      *prometheus.CounterVec
	propagations *prometheus.HistogramVec
	refused      prometheus.Counter
	unknownWorks prometheus.Counter
	panics       prometheus.Counter
	sessions     *prometheus.CounterVec
	digests      *prometheus.CounterVec
	duplicates   prometheus.Counter
	state        *stateCollector
}

func newMetrics(d *Dispatcher) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		events: counters("fleetcast_events_total",
			"Events sent to and received from clusters, by what became of them.", "direction", "type", "result"),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleetcast_publish_seconds",
			Help: "Time until the broker confirmed an event, the wait for its window included.",
			// From a broker on the same machine to one whose window is full.
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		bytes: counter("fleetcast_publish_bytes_total", "Size of the events that the broker confirmed."),
		compression: counters("fleetcast_compression_bytes_total",
			"Size of the bodies that travelled compressed, before (plain) and after (compressed).", "direction", "form"),
		reports: counters("fleetcast_source_reports_total", "Reports of clusters, by the source's verdict.", "verdict"),
		propagations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fleetcast_propagation_seconds",
			Help: "Time that the newest version of a work took: published from its change to the broker, " +
				"reported from the broker to its report, total from its change to its report.",
			// From a fleet at rest to one that is rolled out or comes back.
			Buckets: prometheus.ExponentialBuckets(0.005, 4, 10),
		}, []string{"leg"}),
		refused: counter("fleetcast_source_refused_works_total",
			"Works, counted per generation, that cannot be sent as they are."),
		unknownWorks: counter("fleetcast_source_unknown_works_total",
			"Works in the lists of clusters without digests that the source does not hold."),
		panics:   counter("fleetcast_source_panics_total", "Calls of the source that panicked and are tried again."),
		sessions: counters("fleetcast_source_sessions_total", "Sessions established with the broker.", "resumed"),
		digests: counters("fleetcast_digests_total",
			"Digests of clusters that were answered, by how they compare with the source.", "result"),
		duplicates: counter("fleetcast_source_duplicate_agents_total",
			"How often two agents were found to speak for one cluster."),
		state: newStateCollector(d),
	}
}

// Collectors returns the metrics of this dispatcher. The process registers them.
func (d *Dispatcher) Collectors() []prometheus.Collector {
	m := d.metrics
	return []prometheus.Collector{
		m.events, m.publish, m.bytes, m.compression, m.reports, m.propagations, m.refused, m.unknownWorks, m.panics,
		m.sessions, m.digests, m.duplicates, m.state,
	}
}

func (m *metrics) received(typ, result string) {
	m.events.WithLabelValues(directionReceived, typ, result).Inc()
}

func (m *metrics) published(typ string, size int, took time.Duration, err error) {
	m.events.WithLabelValues(directionSent, typ, publishResult(err)).Inc()
	if err == nil {
		m.publish.Observe(took.Seconds())
		m.bytes.Add(float64(size))
	}
}

// compressed counts a body that travelled compressed, unless it did not arrive.
func (m *metrics) compressed(direction string, plain, small event.Event, err error) {
	if err == nil {
		m.compression.WithLabelValues(direction, "plain").Add(float64(len(plain.Data)))
		m.compression.WithLabelValues(direction, "compressed").Add(float64(len(small.Data)))
	}
}

// reported counts a report that the source judged, and those on the same work
// that it superseded before the source saw them.
func (m *metrics) reported(v Verdict, superseded int) {
	m.reports.WithLabelValues(string(v)).Inc()
	m.received(typeReport, results[v])
	m.superseded(superseded)
}

// superseded counts reports that were settled with a later one on the same work.
func (m *metrics) superseded(n int) {
	if n > 0 {
		m.events.WithLabelValues(directionReceived, typeReport, resultStale).Add(float64(n))
	}
}

func (m *metrics) propagation(leg string, took time.Duration) {
	m.propagations.WithLabelValues(leg).Observe(took.Seconds())
}

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

// A stateCollector reads what a dispatcher knows when it is asked.
type stateCollector struct {
	d *Dispatcher

	depth, flying, parked, clusters, unclaimed, excused, fenced, term *prometheus.Desc
}

func newStateCollector(d *Dispatcher) *stateCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &stateCollector{
		d:     d,
		depth: desc("fleetcast_source_queue_depth", "Keys that wait for a worker.", "queue"),
		flying: desc("fleetcast_oldest_unacked_spec_age_seconds",
			"Age of the oldest change of a work whose newest version was not reported on, of clusters that are not known to be offline."),
		parked: desc("fleetcast_oldest_parked_spec_age_seconds",
			"Age of the oldest change of a work that waits for its cluster to come online."),
		clusters:  desc("fleetcast_clusters", "Clusters by whether their agents are there; of OCM's agents that is unknown.", "state"),
		unclaimed: desc("fleetcast_unclaimed_works", "Works that clusters hold and the source does not know."),
		excused: desc("fleetcast_source_excused_works",
			"Works in which clusters differ from the source and are left as they are.", "cause"),
		fenced: desc("fleetcast_source_fenced", "1 if this hub stopped because another one leads under the same source ID."),
		term:   desc("fleetcast_source_term", "Number of this hub's lead; 0 if leads are not counted."),
	}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.depth, c.flying, c.parked, c.clusters, c.unclaimed, c.excused, c.fenced, c.term} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	d := c.d
	for name, length := range map[string]func() int{
		"works": d.works.Len, "reports": d.reports.Len, "outcomes": d.outcomes.Len, "clusters": d.clusters.Len,
		"digests": d.talks.Len, "checks": d.checks.Len, "agents": d.agents.Len, "drops": d.drops.Len,
	} {
		gauge(c.depth, float64(length()), name)
	}

	d.mu.Lock()
	clusters := map[string]int{"online": 0, "offline": 0, "unknown": 0}
	excused := map[cause]int{causeUnclaimed: 0, causeLeaving: 0, causeWithheld: 0, causeRefused: 0, causeAhead: 0}
	unclaimed := 0
	for _, p := range d.peers {
		switch {
		case !p.capable:
			clusters["unknown"]++
		case p.online:
			clusters["online"]++
		default:
			clusters["offline"]++
		}
		unclaimed += len(p.unclaimed)
		for _, x := range p.excuses {
			excused[x.cause]++
		}
	}
	flying, parked := d.oldestFlightsLocked(time.Now())
	fenced, term := 0.0, d.fence.lead.term
	if d.fence.fenced != nil {
		fenced = 1
	}
	d.mu.Unlock()

	gauge(c.flying, flying.Seconds())
	gauge(c.parked, parked.Seconds())
	for state, n := range clusters {
		gauge(c.clusters, float64(n), state)
	}
	for why, n := range excused {
		gauge(c.excused, float64(n), string(why))
	}
	gauge(c.unclaimed, float64(unclaimed))
	gauge(c.fenced, fenced)
	gauge(c.term, float64(term))
}
