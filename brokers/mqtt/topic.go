package mqtt

import (
	"strings"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// topics spells topics and filters. The names of sources and clusters need no
// escape: a brokers.Topic that is valid has no character with a meaning in
// MQTT.
type topics struct {
	// sources and clusters are the words before a source's and a cluster's
	// name.
	sources, clusters string

	// share is the group that shares a source's subscription, if any.
	share string
}

func (s topics) topic(t brokers.Topic) string { return s.spell(t.Lane, t.Source, t.Cluster) }

func (s topics) filter(f brokers.Filter) string {
	name := func(name string) string {
		if name == brokers.Any {
			return "+"
		}
		return name
	}
	spelled := s.spell(f.Lane, name(f.Source), name(f.Cluster))
	if s.share != "" && f.Lane == brokers.ToSource {
		return "$share/" + s.share + "/" + spelled
	}
	return spelled
}

func (s topics) spell(lane brokers.Lane, source, cluster string) string {
	switch lane {
	case brokers.ToAllClusters:
		return s.sources + "/" + source + "/" + lane.String()
	case brokers.ToAllSources:
		return s.clusters + "/" + cluster + "/" + lane.String()
	default:
		return s.sources + "/" + source + "/" + s.clusters + "/" + cluster + "/" + lane.String()
	}
}

// parse is the reverse of topic. The topic of a message never has the $share
// prefix of the subscription that matched it.
func (s topics) parse(spelled string) (brokers.Topic, bool) {
	var levels [5]string
	n := 0
	for level := range strings.SplitSeq(spelled, "/") {
		if n == len(levels) {
			return brokers.Topic{}, false
		}
		levels[n] = level
		n++
	}
	var t brokers.Topic
	switch last := levels[max(n, 1)-1]; {
	case n == 5 && levels[0] == s.sources && levels[2] == s.clusters && last == brokers.ToCluster.String():
		t = brokers.Topic{Lane: brokers.ToCluster, Source: levels[1], Cluster: levels[3]}
	case n == 5 && levels[0] == s.sources && levels[2] == s.clusters && last == brokers.ToSource.String():
		t = brokers.Topic{Lane: brokers.ToSource, Source: levels[1], Cluster: levels[3]}
	case n == 3 && levels[0] == s.sources && last == brokers.ToAllClusters.String():
		t = brokers.Topic{Lane: brokers.ToAllClusters, Source: levels[1]}
	case n == 3 && levels[0] == s.clusters && last == brokers.ToAllSources.String():
		t = brokers.Topic{Lane: brokers.ToAllSources, Cluster: levels[1]}
	default:
		return brokers.Topic{}, false
	}
	return t, t.Validate() == nil
}
