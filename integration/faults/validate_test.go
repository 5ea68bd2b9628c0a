package faults

import (
	"fmt"
	"slices"
	"strings"
)

// What goroutines and memory may grow by from when all was well first. Leaks
// grow with what happens; pools, caches and the collector's slack do not.
const (
	moreGoroutines = 60
	moreBytes      = 200 << 20
)

// A served program has metrics.
type served struct {
	*process
	metrics string
	ready   func() error
}

// programs are those that run and can be asked what they use.
func (w *world) programs() []served {
	var all []served
	if w.hub.running() {
		all = append(all, served{w.hub.process, w.hub.metrics, func() error { return w.hub.dispatches(w.t.Context()) }})
	}
	for _, c := range w.clusters {
		if c.agent != nil && c.agent.running() {
			all = append(all, served{c.agent, c.metrics, func() error { return probe(w.t.Context(), c.metrics, "/readyz") }})
		}
	}
	return all
}

// validate returns the promises that were broken, by the validators' names.
// That everything is as it shall be was seen before, which is V2; it is looked at
// again, since what is overdone comes afterwards.
func (w *world) validate() []string {
	broken := w.record.verdict()
	if err := w.settled(); err != nil {
		broken = append(broken, "V2: it did not stay: "+err.Error())
	}
	for _, p := range w.programs() {
		all, err := scrape(p.metrics)
		if err != nil {
			broken = append(broken, fmt.Sprintf("V6: %s: %v", p.name, err))
			continue
		}
		broken = append(broken, counters(p.name, all)...)
		base, ok := w.base[p.name]
		if !ok {
			continue
		}
		if n := sum(all, "go_goroutines"); n > base.goroutines+moreGoroutines {
			broken = append(broken, fmt.Sprintf("V7: %s has %.0f goroutines, and had %.0f", p.name, n, base.goroutines))
		}
		if n := sum(all, "process_resident_memory_bytes"); n > base.bytes+moreBytes {
			broken = append(broken, fmt.Sprintf("V7: %s has %.0f MB, and had %.0f", p.name, n/1e6, base.bytes/1e6))
		}
	}
	return broken
}

// rubbish are the results of an event that say something against its sender.
var rubbish = []string{
	"malformed", "mismatch", "foreign_cluster", "foreign_source", "unknown_type", "unsupported_version", "invalid", "panic",
}

// counters is V6: what was received has a result, and nobody sent rubbish.
func counters(name string, all []sample) []string {
	var broken []string
	for _, s := range all {
		if !strings.HasSuffix(s.name, "events_total") || s.labels["direction"] == "sent" || s.value == 0 {
			continue
		}
		result := s.labels["result"]
		if result == "" {
			broken = append(broken, fmt.Sprintf("V6: %s counts %.0f events without a result", name, s.value))
			continue
		}
		if slices.Contains(rubbish, result) {
			broken = append(broken, fmt.Sprintf("V6: %s counts %.0f events as %s", name, s.value, result))
		}
	}
	if n := sum(all, "fleetcast_source_panics_total"); n > 0 {
		broken = append(broken, fmt.Sprintf("V6: %s panicked %.0f times", name, n))
	}
	return broken
}
