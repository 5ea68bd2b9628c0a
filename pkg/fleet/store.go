package fleet

import (
	"path/filepath"

	"github.com/fleetcast-io/fleetcast/agents"
)

// store is where the agent keeps its state: a file, or memory that outlives it.
func (m *member) store() (agents.Store, error) {
	if m.f.o.StateDir != "" {
		return agents.OpenDisk(filepath.Join(m.f.o.StateDir, m.name), m.name)
	}
	if m.memory == nil {
		m.memory = &agents.Volatile{}
	}
	return m.memory, nil
}
