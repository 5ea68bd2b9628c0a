package fleet

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// A Scenario is what a fleet goes through, step by step.
type Scenario struct {
	// Description says what it shows.
	Description string `json:"description,omitempty"`
	// Behaviour is that of the clusters.
	Behaviour Behaviour `json:"behaviour,omitzero"`
	// Steps follow each other. Each ends when the source holds the status of
	// every work, and every cluster runs what the source holds for it.
	Steps []Step `json:"steps"`
}

// A Step is one thing that happens.
type Step struct {
	// Do is what happens; see Actions.
	Do Action `json:"do"`
	// Share is how much of all works a change is about, or how many of all
	// clusters go away. Default: all.
	Share float64 `json:"share,omitempty"`
	// For is how long something is away, or how long a pause lasts.
	For metav1.Duration `json:"for,omitzero"`
	// Waves is in how many parts a rolling change is made. Default: 10.
	Waves int `json:"waves,omitempty"`
}

// An Action is what a step does.
type Action string

// Actions.
const (
	// Load makes the works for the first time.
	Load Action = "load"
	// Change makes a new version of a share of the works.
	Change Action = "change"
	// Roll makes a new version of all works, in waves of clusters of which each
	// begins when the one before has arrived.
	Roll Action = "roll"
	// RestartBroker stops the broker, waits, and starts it again.
	RestartBroker Action = "restart-broker"
	// WipeBroker kills the broker, deletes its data and starts it again.
	WipeBroker Action = "wipe-broker"
	// RestartHub stops the hub's dispatcher, waits, and starts another.
	RestartHub Action = "restart-hub"
	// Away stops the agents of a share of the clusters, makes a new version of
	// all their works meanwhile, and starts them all at the same moment.
	Away Action = "away"
	// Idle does nothing, to see what a fleet costs that does nothing.
	Idle Action = "idle"
)

// Actions are all that there are.
var Actions = []Action{Load, Change, Roll, RestartBroker, WipeBroker, RestartHub, Away, Idle}

// needsBroker says whether the step needs a broker that the simulation started.
func (s Step) needsBroker() bool { return s.Do == RestartBroker || s.Do == WipeBroker }

//go:embed scenarios
var scenarios embed.FS

// Scenarios are the names of those that come with this package.
func Scenarios() []string {
	entries, err := scenarios.ReadDir("scenarios")
	if err != nil {
		return nil // It is part of the program.
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Named returns a scenario that comes with this package.
func Named(name string) (Scenario, error) {
	if !slices.Contains(Scenarios(), name) {
		return Scenario{}, fmt.Errorf("there is no scenario %q: name one of %s, or a file", name, strings.Join(Scenarios(), ", "))
	}
	raw, err := scenarios.ReadFile(path.Join("scenarios", name+".yaml"))
	if err != nil {
		return Scenario{}, err
	}
	return ParseScenario(raw)
}

// ParseScenario reads a scenario from YAML. Fields that are not known are
// errors.
func ParseScenario(raw []byte) (Scenario, error) {
	var s Scenario
	if err := yaml.UnmarshalStrict(raw, &s); err != nil {
		return s, fmt.Errorf("read the scenario: %w", err)
	}
	if err := s.Behaviour.validate(); err != nil {
		return s, err
	}
	if len(s.Steps) == 0 || s.Steps[0].Do != Load {
		return s, fmt.Errorf("a scenario begins with the step %q", Load)
	}
	for i, step := range s.Steps {
		switch {
		case !slices.Contains(Actions, step.Do):
			return s, fmt.Errorf("step %d: there is no action %q", i+1, step.Do)
		case step.Share < 0 || step.Share > 1:
			return s, fmt.Errorf("step %d: a share of %v is not from 0 to 1", i+1, step.Share)
		case step.For.Duration < 0 || step.For.Duration > 24*time.Hour:
			return s, fmt.Errorf("step %d: %s is not from nothing to a day", i+1, step.For.Duration)
		case step.Waves < 0:
			return s, fmt.Errorf("step %d: %d waves", i+1, step.Waves)
		case step.Do == Load && i > 0:
			return s, fmt.Errorf("step %d: works are loaded once", i+1)
		}
	}
	return s, nil
}

// NeedsBroker says whether the scenario needs a broker that the simulation
// itself started.
func (s Scenario) NeedsBroker() bool { return slices.ContainsFunc(s.Steps, Step.needsBroker) }
