package kube

import (
	"sync"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

// A clusterRecord is what this process knows of one cluster beside the objects
// of its works.
type clusterRecord struct {
	// writing serialises what is read, decided and written for the cluster's
	// Agent.
	writing sync.Mutex

	// The rest is guarded by Source.mu.

	deletions deletions

	// agent is the newest known object, nil if there is none.
	agent *v1alpha1.Agent
	// state is what the dispatcher said of the agent last; nil until it does, and
	// the object's status counts.
	state *sources.AgentState
	// tombstones are by ID. The object's are in it, too.
	tombstones map[string]*tombstone
	// changes counts the changes of tombstones, saved is its value as of the last
	// write.
	changes, saved int64
}

// clusterOf returns the record of a cluster and makes it if there is none. The
// caller holds mu.
func (s *Source) clusterOf(cluster string) *clusterRecord {
	c, ok := s.clusters[cluster]
	if !ok {
		c = &clusterRecord{tombstones: map[string]*tombstone{}}
		s.clusters[cluster] = c
	}
	return c
}

// forget drops the record of a cluster of which there is nothing to know. The
// caller holds mu.
func (s *Source) forget(cluster string) {
	c := s.clusters[cluster]
	if c == nil || c.agent != nil || c.deletions.works > 0 || c.changes != c.saved {
		return
	}
	for _, t := range c.tombstones {
		if t.ConfirmedAt == nil {
			return
		}
	}
	delete(s.clusters, cluster)
}
