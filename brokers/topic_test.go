package brokers_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/brokers"
)

func TestTopic(t *testing.T) {
	for _, test := range []struct {
		reason string
		topic  brokers.Topic
		text   string // Empty if the topic is invalid.
	}{
		{
			"a lane of both names",
			brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1"},
			"source hub, cluster c1, sourceevents",
		},
		{
			"a key is told",
			brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"},
			"source hub, cluster c1, agentevents k",
		},
		{
			"a broadcast of a source has no cluster",
			brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"},
			"source hub, sourcebroadcast",
		},
		{
			"a broadcast of a cluster has no source",
			brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c1"},
			"cluster c1, agentbroadcast",
		},
		{
			"dots are common in cluster names",
			brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "eu.prod.example.com"},
			"source hub, cluster eu.prod.example.com, sourceevents",
		},
		{
			"the longest name",
			brokers.Topic{Lane: brokers.ToAllSources, Cluster: strings.Repeat("x", 253)},
			"cluster " + strings.Repeat("x", 253) + ", agentbroadcast",
		},
		{"keys are the source's business", brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub", Key: "*/>#"}, "source hub, sourcebroadcast */>#"},

		{"one byte over the longest name", brokers.Topic{Lane: brokers.ToAllSources, Cluster: strings.Repeat("x", 254)}, ""},
		{"no lane", brokers.Topic{}, ""},
		{"no such lane", brokers.Topic{Lane: 5}, ""},
		{"no source", brokers.Topic{Lane: brokers.ToCluster, Cluster: "c1"}, ""},
		{"no cluster", brokers.Topic{Lane: brokers.ToCluster, Source: "hub"}, ""},
		{"a cluster too many", brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub", Cluster: "c1"}, ""},
		{"a source too many", brokers.Topic{Lane: brokers.ToAllSources, Source: "hub", Cluster: "c1"}, ""},
		{"a topic is one place", brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: brokers.Any}, ""},
		{"an MQTT wildcard of one level", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "+"}, ""},
		{"an MQTT wildcard of all levels", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "#"}, ""},
		{"a NATS wildcard", brokers.Topic{Lane: brokers.ToAllSources, Cluster: ">"}, ""},
		{"topics of the broker itself", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "$SYS"}, ""},
		{"two levels", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "a/b"}, ""},
		{"white space", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "a b"}, ""},
		{"white space outside ASCII", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "a\u2003b"}, ""},
		{"a control character", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "a\x00"}, ""},
		{"not UTF-8", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "a\xff"}, ""},
	} {
		err := test.topic.Validate()
		switch {
		case test.text == "" && !errors.Is(err, brokers.ErrInvalidTopic):
			t.Errorf("%s: %+v validates with %v, want ErrInvalidTopic", test.reason, test.topic, err)
		case test.text != "" && err != nil:
			t.Errorf("%s: %+v: %v", test.reason, test.topic, err)
		case test.text != "" && test.topic.String() != test.text:
			t.Errorf("%s: is written %q, want %q", test.reason, test.topic, test.text)
		}
	}
}

func TestFilter(t *testing.T) {
	for _, test := range []struct {
		reason string
		filter brokers.Filter
		valid  bool
	}{
		{"exact names", brokers.Filter{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1"}, true},
		{"any source", brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}, true},
		{"any cluster", brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: brokers.Any}, true},
		{"any of both", brokers.Filter{Lane: brokers.ToSource, Source: brokers.Any, Cluster: brokers.Any}, true},
		{"any broadcast", brokers.Filter{Lane: brokers.ToAllSources, Cluster: brokers.Any}, true},
		{"a wildcard stands alone", brokers.Filter{Lane: brokers.ToCluster, Source: "hub*", Cluster: "c1"}, false},
		{"other wildcards are names, and wrong ones", brokers.Filter{Lane: brokers.ToCluster, Source: "+", Cluster: "c1"}, false},
		{"no wildcard for a name the lane does not have", brokers.Filter{Lane: brokers.ToAllSources, Source: brokers.Any, Cluster: "c1"}, false},
		{"no source", brokers.Filter{Lane: brokers.ToCluster, Cluster: "c1"}, false},
		{"no cluster", brokers.Filter{Lane: brokers.ToSource, Source: "hub"}, false},
		{"no lane", brokers.Filter{}, false},
		{"no such lane", brokers.Filter{Lane: -1}, false},
	} {
		switch err := test.filter.Validate(); {
		case test.valid && err != nil:
			t.Errorf("%s: %+v: %v", test.reason, test.filter, err)
		case !test.valid && !errors.Is(err, brokers.ErrInvalidTopic):
			t.Errorf("%s: %+v validates with %v, want ErrInvalidTopic", test.reason, test.filter, err)
		}
	}
}

func TestFilterMatches(t *testing.T) {
	topic := brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1", Key: "k"}
	for _, test := range []struct {
		reason string
		filter brokers.Filter
		want   bool
	}{
		{"keys are all of them", brokers.Filter{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1"}, true},
		{"any source", brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}, true},
		{"any cluster", brokers.Filter{Lane: brokers.ToCluster, Source: "hub", Cluster: brokers.Any}, true},
		{"another lane of the same names", brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: "c1"}, false},
		{"another source", brokers.Filter{Lane: brokers.ToCluster, Source: "hub2", Cluster: "c1"}, false},
		{"a cluster whose name is longer", brokers.Filter{Lane: brokers.ToCluster, Source: "hub", Cluster: "c10"}, false},
	} {
		if got := test.filter.Matches(topic); got != test.want {
			t.Errorf("%s: %+v matches %s: %t, want %t", test.reason, test.filter, topic, got, test.want)
		}
	}
}

// TestFilterOfTopic holds that the names of every valid topic are a valid
// filter of exactly that topic.
func TestFilterOfTopic(t *testing.T) {
	lanes := []brokers.Lane{brokers.ToCluster, brokers.ToSource, brokers.ToAllClusters, brokers.ToAllSources}
	rapid.Check(t, func(t *rapid.T) {
		topic := func(label string) brokers.Topic {
			// Few names, so that two topics often share them.
			name := rapid.SampledFrom([]string{"a", "b", "a.b", "A", "a%2Eb", "ü"})
			topic := brokers.Topic{Lane: rapid.SampledFrom(lanes).Draw(t, label+" lane")}
			if topic.Lane.HasSource() {
				topic.Source = name.Draw(t, label+" source")
			}
			if topic.Lane.HasCluster() {
				topic.Cluster = name.Draw(t, label+" cluster")
			}
			return topic
		}
		one, other := topic("one"), topic("other")
		if err := errors.Join(one.Validate(), other.Validate()); err != nil {
			t.Fatal(err)
		}
		f := brokers.Filter{Lane: one.Lane, Source: one.Source, Cluster: one.Cluster}
		if err := f.Validate(); err != nil {
			t.Fatalf("the filter of %s is invalid: %v", one, err)
		}
		if !f.Matches(one) {
			t.Fatalf("the filter of %s does not match it", one)
		}
		if f.Matches(other) != (one == other) {
			t.Fatalf("the filter of %s matches %s: %t", one, other, f.Matches(other))
		}
	})
}

func FuzzTopicValidate(f *testing.F) {
	f.Add(1, "hub", "c1")
	f.Add(3, "hub", "")
	f.Add(4, "", "eu.prod")
	f.Add(2, "*", "a/b")
	f.Fuzz(func(t *testing.T, lane int, source, cluster string) {
		topic := brokers.Topic{Lane: brokers.Lane(lane), Source: source, Cluster: cluster}
		err := topic.Validate()
		if err != nil {
			if !errors.Is(err, brokers.ErrInvalidTopic) {
				t.Errorf("%+v: %v does not wrap ErrInvalidTopic", topic, err)
			}
			return
		}
		// What is valid can be put between the separators of any broker, and
		// cannot be mistaken for more than one place.
		for _, name := range []string{source, cluster} {
			if strings.ContainsAny(name, "/+#*>$ \t\r\n\x00") || len(name) > 253 {
				t.Errorf("%+v is valid", topic)
			}
		}
		if (source == "") == topic.Lane.HasSource() || (cluster == "") == topic.Lane.HasCluster() {
			t.Errorf("%+v is valid, but does not have the names of its lane", topic)
		}
	})
}
