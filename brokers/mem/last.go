package mem

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A record is an event as the broker took it. Nobody changes it.
type record struct {
	seq   uint64
	topic brokers.Topic
	event event.Event
}

// lastValues are the newest records of all topics, found by each filter that
// selects them.
type lastValues struct {
	byFilter map[brokers.Filter]map[brokers.Topic]record
}

func newLastValues() *lastValues {
	return &lastValues{byFilter: make(map[brokers.Filter]map[brokers.Topic]record)}
}

// filtersOf lists every filter that matches a topic.
func filtersOf(t brokers.Topic) []brokers.Filter {
	names := func(name string, has bool) []string {
		if has {
			return []string{name, brokers.Any}
		}
		return []string{""}
	}
	filters := make([]brokers.Filter, 0, 4)
	for _, source := range names(t.Source, t.Lane.HasSource()) {
		for _, cluster := range names(t.Cluster, t.Lane.HasCluster()) {
			filters = append(filters, brokers.Filter{Lane: t.Lane, Source: source, Cluster: cluster})
		}
	}
	return filters
}

func (v *lastValues) put(r record) {
	for _, f := range filtersOf(r.topic) {
		if v.byFilter[f] == nil {
			v.byFilter[f] = make(map[brokers.Topic]record)
		}
		v.byFilter[f][r.topic] = r
	}
}

// superseded says whether there is a newer record of the same topic.
func (v *lastValues) superseded(r record) bool {
	exact := brokers.Filter{Lane: r.topic.Lane, Source: r.topic.Source, Cluster: r.topic.Cluster}
	return v.byFilter[exact][r.topic].seq > r.seq
}

// after returns the records that any of the filters selects and that came
// after the given one, oldest first.
func (v *lastValues) after(seq uint64, filters []brokers.Filter) []record {
	var records []record
	for _, f := range filters {
		for _, r := range v.byFilter[f] {
			if r.seq > seq {
				records = append(records, r)
			}
		}
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.seq, b.seq) })
	return slices.CompactFunc(records, func(a, b record) bool { return a.seq == b.seq })
}

func (b *Broker) position(seq uint64) string { return fmt.Sprintf("%d.%d", b.epoch, seq) }

// parsePosition returns where a position is in the log, and false with 0 if it
// is of no or of another log.
func (b *Broker) parsePosition(p string) (uint64, bool) {
	var epoch, seq uint64
	if _, err := fmt.Sscanf(p, "%d.%d", &epoch, &seq); err != nil || epoch != b.epoch || seq > b.seq {
		return 0, false
	}
	return seq, true
}
