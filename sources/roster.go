package sources

import (
	"context"
	"time"
)

// A Roster is a Source that keeps what is known of the agents of its clusters,
// for people and for the next dispatcher. Only agents that know digests are in
// it: of others nobody can tell whether they are there.
type Roster interface {
	// Agents returns what was saved, to start from. It is called when a
	// dispatcher starts, and again after an error.
	Agents(ctx context.Context) ([]AgentState, error)

	// SaveAgent keeps the state of one agent. It is called when something of it
	// changed other than LastSeen, never concurrently for one cluster, and after
	// an error again with what is true then.
	SaveAgent(ctx context.Context, s AgentState) error
}

// AgentState is what is known of the agent of one cluster.
type AgentState struct {
	Cluster string
	// Agent is its identity (CloudEvents source).
	Agent string
	// Capabilities are those that it last told, sorted. Without any it is an
	// agent of OCM, of which nobody knows whether it is online; it is then saved
	// only to take the place of what was saved before.
	Capabilities []string

	// Online says whether it is there, Since from when on that is so.
	Online bool
	Since  time.Time
	// LastSeen is when the last event of it came. It changes without being
	// saved.
	LastSeen time.Time

	// InSync says whether its last digest matched: whether it holds what the
	// source wants it to, apart from what is known to differ. SyncedAt is when a
	// digest matched last; like LastSeen, it changes without being saved.
	InSync   bool
	SyncedAt time.Time

	// Duplicate says that two instances of the agent were heard in turns.
	Duplicate bool

	// Unclaimed are the works that it holds and its source does not know, sorted
	// by ID. There may be more of them than are listed (at most MaxUnclaimed).
	Unclaimed []Unclaimed
}

// MaxUnclaimed is how many unclaimed works of one cluster are remembered. A
// cluster that has more of them is never in sync.
const MaxUnclaimed = 10_000

// Unclaimed is a work that a cluster holds and its source does not know. It
// stays there untouched until its source has a work or a tombstone of the ID.
type Unclaimed struct {
	ID, Name   string
	Generation int64
	Deleting   bool
}
