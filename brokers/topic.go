package brokers

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Lane is a direction between sources and clusters. The four are OCM's: one
// source to one cluster and back, and a broadcast each way.
type Lane int

const (
	// ToCluster carries specs and questions from one source to one cluster
	// (OCM: sourceevents).
	ToCluster Lane = iota + 1
	// ToSource carries reports and questions from one cluster to one source
	// (OCM: agentevents).
	ToSource
	// ToAllClusters carries questions from one source to every cluster (OCM:
	// sourcebroadcast). Brokers may deliver it at most once.
	ToAllClusters
	// ToAllSources carries questions from one cluster to every source (OCM:
	// agentbroadcast). Brokers may deliver it at most once.
	ToAllSources
)

// String names the lane as OCM's topics do.
func (l Lane) String() string {
	switch l {
	case ToCluster:
		return "sourceevents"
	case ToSource:
		return "agentevents"
	case ToAllClusters:
		return "sourcebroadcast"
	case ToAllSources:
		return "agentbroadcast"
	}
	return fmt.Sprintf("lane(%d)", int(l))
}

// HasSource says whether topics of this lane name a source.
func (l Lane) HasSource() bool { return l == ToCluster || l == ToSource || l == ToAllClusters }

// HasCluster says whether topics of this lane name a cluster.
func (l Lane) HasCluster() bool { return l == ToCluster || l == ToSource || l == ToAllSources }

// A Topic is the address of an event. Drivers spell it.
type Topic struct {
	Lane Lane

	// Source and Cluster are set as the lane requires and empty otherwise.
	Source, Cluster string

	// Key names the object that the event is about. A broker that keeps the
	// last value per key keeps one event for each; others ignore it. Empty is
	// a key like any other.
	Key string
}

// String is for people; drivers have their own spelling.
func (t Topic) String() string {
	var b strings.Builder
	if t.Lane.HasSource() {
		b.WriteString("source " + t.Source + ", ")
	}
	if t.Lane.HasCluster() {
		b.WriteString("cluster " + t.Cluster + ", ")
	}
	b.WriteString(t.Lane.String())
	if t.Key != "" {
		b.WriteString(" " + t.Key)
	}
	return b.String()
}

// Validate checks that t names one place. Its error wraps ErrInvalidTopic.
func (t Topic) Validate() error {
	if err := validName("source", t.Source, t.Lane.HasSource(), false); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalidTopic, t.Lane, err)
	}
	if err := validName("cluster", t.Cluster, t.Lane.HasCluster(), false); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalidTopic, t.Lane, err)
	}
	return t.Lane.validate()
}

// Any is the wildcard in a Filter's names.
const Any = "*"

// A Filter selects topics of one lane. Source and Cluster are exact names or
// Any, set as the lane requires; keys are always all of them.
type Filter struct {
	Lane            Lane
	Source, Cluster string
}

// Matches says whether events to t pass the filter.
func (f Filter) Matches(t Topic) bool {
	matches := func(pattern, name string) bool { return pattern == Any || pattern == name }
	return f.Lane == t.Lane && matches(f.Source, t.Source) && matches(f.Cluster, t.Cluster)
}

// Validate checks the filter. Its error wraps ErrInvalidTopic.
func (f Filter) Validate() error {
	if err := validName("source", f.Source, f.Lane.HasSource(), true); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalidTopic, f.Lane, err)
	}
	if err := validName("cluster", f.Cluster, f.Lane.HasCluster(), true); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalidTopic, f.Lane, err)
	}
	return f.Lane.validate()
}

func (l Lane) validate() error {
	if l < ToCluster || l > ToAllSources {
		return fmt.Errorf("%w: %s", ErrInvalidTopic, l)
	}
	return nil
}

// maxName is above any Kubernetes name and well below any broker's limit.
const maxName = 253

func validName(what, name string, wanted, wildcard bool) error {
	switch {
	case !wanted && name != "":
		return fmt.Errorf("this lane has no %s, got %q", what, name)
	case !wanted:
		return nil
	case name == "":
		return fmt.Errorf("%s is empty", what)
	case name == Any && wildcard:
		return nil
	case len(name) > maxName:
		return fmt.Errorf("%s is longer than %d bytes", what, maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s is not UTF-8", what)
	}
	for _, r := range name {
		if strings.ContainsRune("/+#*>$", r) || unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Errorf("%s %q has the character %q", what, name, r)
		}
	}
	return nil
}
