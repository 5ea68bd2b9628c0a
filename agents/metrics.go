package agents

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Values of the result label of digestsTotal.
const (
	resultMatch         = "match"
	resultDiffers       = "differs"
	resultOutdated      = "outdated"
	resultOtherInstance = "other_instance"
	resultFenced        = "fenced"
)

var (
	eventsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_events_total",
		Help: "Events received by the agent, by what became of them.",
	}, []string{"result"})

	worksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_works_total",
		Help: "Turns that works had, by what was done and whether it succeeded.",
	}, []string{"operation", "result"})

	publishedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_published_total",
		Help: "Events that the agent published, by kind and result.",
	}, []string{"kind", "result"})

	compressionBytes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_compression_bytes_total",
		Help: "Size of the bodies that travelled compressed, before (plain) and after (compressed).",
	}, []string{"direction", "form"})

	sessionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_sessions_total",
		Help: "Times that the agent's subscription was established, by whether the broker went on where it was.",
	}, []string{"resumed"})

	digestsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetcast_agent_digests_total",
		Help: "Answers of sources to the agent's digests, by what they said.",
	}, []string{"result"})

	propagation = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "fleetcast_propagation_seconds",
		Help: "How long versions of works took on each leg of their way.",
		// From a broker on the same machine to a cluster that was away for hours.
		Buckets: prometheus.ExponentialBuckets(0.005, 4, 12),
	}, []string{"leg"})
)

// Legs of a version's way that end at the agent: from the source, by its clock,
// to this agent's disk; and from there to where the applier is done with it.
const (
	legDelivered = "delivered"
	legApplied   = "applied"
)

// Values of the direction label.
const (
	directionSent     = "sent"
	directionReceived = "received"
)

// countCompressed counts a body that travelled compressed.
func countCompressed(direction string, plain, small event.Event) {
	compressionBytes.WithLabelValues(direction, "plain").Add(float64(len(plain.Data)))
	compressionBytes.WithLabelValues(direction, "compressed").Add(float64(len(small.Data)))
}

// Collectors returns the package's metrics, for a registry. They are shared by
// all agents of a process. Those of one agent are its own Collectors.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{eventsTotal, worksTotal, publishedTotal, compressionBytes, sessionsTotal, digestsTotal, propagation}
}

// Collectors returns the metrics of this agent, for a registry that has no
// other agent's.
func (a *Agent) Collectors() []prometheus.Collector {
	depth := func(name string, length func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "fleetcast_agent_queue_depth",
			Help:        "Keys that wait for a worker.",
			ConstLabels: prometheus.Labels{"queue": name},
		}, func() float64 { return float64(length()) })
	}
	return []prometheus.Collector{depth("works", a.work.Len), depth("outbox", a.outbox.Len), standing{a}}
}

// standing are the metrics of how an agent stands with those of its sources
// that know digests.
type standing struct{ a *Agent }

var (
	inSyncDesc = prometheus.NewDesc("fleetcast_agent_in_sync",
		"1 if the source confirmed that what the agent holds, and said of it, is what the source expects. Not there for OCM sources.",
		[]string{"source"}, nil)
	unclaimedDesc = prometheus.NewDesc("fleetcast_agent_unclaimed_works",
		"Works of the source that it does not know, as it last said. Not there for OCM sources.",
		[]string{"source"}, nil)
)

// Describe implements prometheus.Collector.
func (s standing) Describe(ch chan<- *prometheus.Desc) {
	ch <- inSyncDesc
	ch <- unclaimedDesc
}

// Collect implements prometheus.Collector.
func (s standing) Collect(ch chan<- prometheus.Metric) {
	for source, d := range s.a.dialogues {
		if !d.isCapable() {
			continue
		}
		inSync := 0.0
		if s.a.InSync(source) {
			inSync = 1
		}
		ch <- prometheus.MustNewConstMetric(inSyncDesc, prometheus.GaugeValue, inSync, source)
		ch <- prometheus.MustNewConstMetric(unclaimedDesc, prometheus.GaugeValue, float64(d.disowned()), source)
	}
}

// An arrival is a version of a work that came and is not applied yet.
type arrival struct {
	generation int64
	at         time.Time
}

// arrive notes that a version is on the disk. sent is when the source sent it;
// zero if that is not known. The clocks of both ends may differ.
func (a *Agent) arrive(k Key, generation int64, sent time.Time) {
	if !sent.IsZero() {
		propagation.WithLabelValues(legDelivered).Observe(max(0, a.o.Now().Sub(sent)).Seconds())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.arrived[k] = arrival{generation, time.Now()}
}

// done notes that the applier is done with a version.
func (a *Agent) done(k Key, generation int64) {
	a.mu.Lock()
	arrived, ok := a.arrived[k]
	if ok && arrived.generation <= generation {
		delete(a.arrived, k)
	}
	a.mu.Unlock()
	if ok && arrived.generation <= generation {
		propagation.WithLabelValues(legApplied).Observe(time.Since(arrived.at).Seconds())
	}
}
