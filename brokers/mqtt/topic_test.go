package mqtt

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/brokers"
)

var ocm = topics{sources: "sources", clusters: "clusters"}

func TestTopics(t *testing.T) {
	for _, test := range []struct {
		reason string
		spell  topics
		topic  brokers.Topic
		want   string
	}{
		{"OCM's four topics", ocm, brokers.Topic{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1"}, "sources/hub1/clusters/c1/sourceevents"},
		{"OCM's four topics", ocm, brokers.Topic{Lane: brokers.ToSource, Source: "hub1", Cluster: "c1"}, "sources/hub1/clusters/c1/agentevents"},
		{"OCM's four topics", ocm, brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub1"}, "sources/hub1/sourcebroadcast"},
		{"OCM's four topics", ocm, brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c1"}, "clusters/c1/agentbroadcast"},
		{"Maestro's words", topics{sources: "sources", clusters: "consumers"}, brokers.Topic{Lane: brokers.ToSource, Source: "maestro", Cluster: "c1"}, "sources/maestro/consumers/c1/agentevents"},
		{"one word for both", topics{sources: "x", clusters: "x"}, brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c1"}, "x/c1/agentbroadcast"},
		{"dotted cluster names are Kubernetes names too", ocm, brokers.Topic{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1.eu.example.com"}, "sources/hub1/clusters/c1.eu.example.com/sourceevents"},
		{"names that are the words of topics", ocm, brokers.Topic{Lane: brokers.ToCluster, Source: "clusters", Cluster: "agentevents"}, "sources/clusters/clusters/agentevents/sourceevents"},
	} {
		if got := test.spell.topic(test.topic); got != test.want {
			t.Errorf("%s: topic %s is spelled %q, want %q", test.reason, test.topic, got, test.want)
		}
		got, ok := test.spell.parse(test.want)
		if diff := cmp.Diff(test.topic, got); !ok || diff != "" {
			t.Errorf("%s: parse %q: %t, (-want +got)\n%s", test.reason, test.want, ok, diff)
		}
	}
}

func TestTopicKeyIsNotInAddress(t *testing.T) {
	with, without := brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: "c", Key: "k"}, brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: "c"}
	if ocm.topic(with) != ocm.topic(without) {
		t.Errorf("the key changes the topic: %q and %q; OCM's peers know one", ocm.topic(with), ocm.topic(without))
	}
}

func TestFilters(t *testing.T) {
	shared := topics{sources: "sources", clusters: "consumers", share: "statussubscribers"}
	for _, test := range []struct {
		reason string
		spell  topics
		filter brokers.Filter
		want   string
	}{
		{"an agent's works", ocm, brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}, "sources/+/clusters/c1/sourceevents"},
		{"a source's reports", ocm, brokers.Filter{Lane: brokers.ToSource, Source: "hub1", Cluster: brokers.Any}, "sources/hub1/clusters/+/agentevents"},
		{"every source", ocm, brokers.Filter{Lane: brokers.ToAllClusters, Source: brokers.Any}, "sources/+/sourcebroadcast"},
		{"every cluster", ocm, brokers.Filter{Lane: brokers.ToAllSources, Cluster: brokers.Any}, "clusters/+/agentbroadcast"},
		{"Maestro's shared reports", shared, brokers.Filter{Lane: brokers.ToSource, Source: "maestro", Cluster: brokers.Any}, "$share/statussubscribers/sources/maestro/consumers/+/agentevents"},
		{"a question to all sources goes to every replica", shared, brokers.Filter{Lane: brokers.ToAllSources, Cluster: brokers.Any}, "consumers/+/agentbroadcast"},
	} {
		if got := test.spell.filter(test.filter); got != test.want {
			t.Errorf("%s: filter is spelled %q, want %q", test.reason, got, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for topic, reason := range map[string]string{
		"":                                      "nothing",
		"/":                                     "nothing, twice",
		"sources":                               "too few levels",
		"sources/s/clusters/c":                  "no lane",
		"sources/s/clusters/c/sourceevents/x":   "too many levels",
		"sources/s/clusters/c/sourcebroadcast":  "a lane of another form",
		"sources/s/sourceevents":                "a lane of another form",
		"clusters/c/sourcebroadcast":            "a source's lane under a cluster",
		"sources/s/agentbroadcast":              "a cluster's lane under a source",
		"sources//clusters/c/sourceevents":      "an empty source",
		"sources/s/clusters//sourceevents":      "an empty cluster",
		"sources/s/consumers/c/sourceevents":    "words of another fleet",
		"Sources/s/clusters/c/sourceevents":     "other case",
		"sources/s/clusters/+/sourceevents":     "a wildcard names nobody",
		"sources/#/clusters/c/sourceevents":     "a wildcard names nobody",
		"sources/s/clusters/c d/sourceevents":   "a name with a space",
		"$share/g/sources/s/clusters/c/agentev": "a filter is no topic",
		"$SYS/broker/uptime":                    "the broker's own",
	} {
		if got, ok := ocm.parse(topic); ok {
			t.Errorf("topic %q (%s) is taken for %+v", topic, reason, got)
		}
	}
}

func TestTopicsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-z]{1,9}`)
		name := rapid.StringMatching(`[A-Za-z0-9._~%=üß-]{1,40}`)
		spell := topics{sources: word.Draw(t, "sources"), clusters: word.Draw(t, "clusters")}
		lane := brokers.Lane(rapid.IntRange(int(brokers.ToCluster), int(brokers.ToAllSources)).Draw(t, "lane"))
		topic := brokers.Topic{Lane: lane}
		if lane.HasSource() {
			topic.Source = name.Draw(t, "source")
		}
		if lane.HasCluster() {
			topic.Cluster = name.Draw(t, "cluster")
		}
		got, ok := spell.parse(spell.topic(topic))
		if !ok || got != topic {
			t.Fatalf("%+v is spelled %q, which is parsed as %+v, %t", topic, spell.topic(topic), got, ok)
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	f.Add("sources/s/clusters/c/sourceevents")
	f.Add("clusters/c/agentbroadcast")
	f.Add("////")
	f.Fuzz(func(t *testing.T, spelled string) {
		topic, ok := ocm.parse(spelled)
		if !ok {
			return
		}
		if err := topic.Validate(); err != nil {
			t.Errorf("topic %q is taken for an invalid one: %v", spelled, err)
		}
		if again := ocm.topic(topic); again != spelled {
			t.Errorf("topic %q is taken for %+v, which is spelled %q", spelled, topic, again)
		}
	})
}
