package memory

import (
	"context"
	"slices"

	"github.com/fleetcast-io/fleetcast/sources"
)

var (
	_ sources.Lifetime = (*Source)(nil)
	_ sources.Roster   = (*Source)(nil)
)

// Begin implements sources.Lifetime. The epoch is that of New.
func (s *Source) Begin(_ context.Context, above int64) (epoch string, term int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = max(s.term, above) + 1
	return s.epoch, s.term, nil
}

// Agents implements sources.Roster.
func (s *Source) Agents(context.Context) ([]sources.AgentState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	agents := make([]sources.AgentState, 0, len(s.agents))
	for _, a := range s.agents {
		agents = append(agents, owned(a))
	}
	return agents, nil
}

// SaveAgent implements sources.Roster.
func (s *Source) SaveAgent(_ context.Context, a sources.AgentState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents[a.Cluster] = owned(a)
	s.broadcast()
	return nil
}

// Agent is what was last saved of the agent of a cluster, and false if nothing
// was.
func (s *Source) Agent(cluster string) (sources.AgentState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.agents[cluster]
	return owned(a), ok
}

// owned is a copy that shares nothing with a.
func owned(a sources.AgentState) sources.AgentState {
	a.Capabilities, a.Unclaimed = slices.Clone(a.Capabilities), slices.Clone(a.Unclaimed)
	return a
}
