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
	// tombstones are by ID. The object's are in it, too. Of those that are not
	// confirmed there are so many, of so many bytes.
	tombstones                    map[string]*tombstone
	unconfirmed, unconfirmedBytes int
	// homeless says that it was told that the cluster's namespace takes no Agent
	// though there are deletions to be saved.
	homeless bool
	// changes counts the changes of tombstones, saved is its value as of the last
	// write.
	changes, saved int64
	// writes is how many writes of the Agent are under way.
	writes int
}

// keepsAgent says whether the Agent, and the namespace with it, must stay.
func (c *clusterRecord) keepsAgent() bool { return c.deletions.works > 0 || c.unconfirmed > 0 }

// due says whether there is something to do for the cluster when a replica
// begins to lead. The caller holds mu.
func (c *clusterRecord) due() bool {
	if c.changes != c.saved || len(c.deletions.undecided) > 0 || len(c.deletions.withheld) > 0 {
		return true
	}
	if c.agent == nil {
		return c.state != nil
	}
	return len(c.agent.Spec.Delete) > 0 || hasAgentFinalizer(c.agent) != c.keepsAgent()
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
	if c == nil || c.agent != nil || c.deletions.works > 0 || c.unconfirmed > 0 || c.changes != c.saved || c.writes > 0 {
		return
	}
	if c.state != nil && len(c.state.Capabilities) > 0 {
		return // Its namespace may come.
	}
	delete(s.clusters, cluster)
}
